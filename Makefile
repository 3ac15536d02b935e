# Perilune: build, run, test, check. `make help` lists the targets.
#
# Everything that is built goes to build/. The sanitizer targets call this file again with another
# BUILD and SANITIZE. Packages are installed by .ci/deps, and only those that dpkg says are missing.

CC       ?= cc
LUAJIT   ?= luajit
BUILD    ?= build
SANITIZE ?=
PREFIX   ?= /usr/local
DESTDIR  ?=

BUILD_PACKAGES := gcc libc6-dev make pkg-config libluajit-5.1-dev luajit libevent-dev libssl-dev \
                  lua-cjson-dev
RUN_PACKAGES   := $(BUILD_PACKAGES) curl
TEST_PACKAGES  := $(RUN_PACKAGES) libcmocka-dev lua-busted lua-socket lua-sec openssl ca-certificates
LINT_PACKAGES  := luajit lua-check clang-format cppcheck
FUZZ_PACKAGES  := $(BUILD_PACKAGES) clang libclang-rt-dev llvm

# --- flags ---------------------------------------------------------------------------------------

# LuaJIT raises its errors through C frames, so unwind tables stay in.
WARNINGS  := -Wall -Wextra -Werror
CPPFLAGS  += -D_GNU_SOURCE= -Icore
CFLAGS    += -std=gnu11 -g $(WARNINGS) -pthread -fPIE -funwind-tables -fasynchronous-unwind-tables \
             -fstack-protector-strong
LDFLAGS   += -pie -pthread -Wl,-z,relro,-z,now

ifeq ($(SANITIZE),)
OPTIMIZE  ?= -O2
CPPFLAGS  += -D_FORTIFY_SOURCE=2
else
# FORTIFY would hide calls from the sanitizers; frame pointers give them whole stacks.
OPTIMIZE  ?= -O1
CFLAGS    += -fsanitize=$(SANITIZE) -fno-omit-frame-pointer
LDFLAGS   += -fsanitize=$(SANITIZE)
ifneq ($(findstring undefined,$(SANITIZE)),)
CFLAGS    += -fno-sanitize-recover=undefined
endif
endif
CFLAGS    += $(OPTIMIZE)

# LuaJIT's errors leave C functions without a word to the thread sanitizer, whose own idea of the stack
# would grow with each: after some 65,000 it ends the program. So it is not told of those it enters.
ifneq ($(findstring thread,$(SANITIZE)),)
RAISING   := $(shell grep -l '<lauxlib.h>' core/*.c)
$(RAISING:%.c=$(BUILD)/%.o): CFLAGS += --param=tsan-instrument-func-entry-exit=0
endif

MODULES   := luajit openssl
# Asked for once, and only when something is compiled (the packages may not be there before `deps`).
PKG_CFLAGS = $(eval PKG_CFLAGS := $(shell pkg-config --cflags $(MODULES)))$(PKG_CFLAGS)
PKG_LIBS   = $(eval PKG_LIBS := $(shell pkg-config --libs $(MODULES)))$(PKG_LIBS)
# lua-cjson is linked in; its .pc file requires a package lua5.1, which LuaJIT is not.
CJSON      = $(shell $(CC) -print-file-name=liblua5.1-cjson.a)
# Named one by one: libevent's .pc files would link the whole library beside its parts.
EVENT_LIBS := -levent_extra -levent_core
LIBS       = $(CJSON) $(EVENT_LIBS) $(PKG_LIBS) -lm

# --- sources -------------------------------------------------------------------------------------

SOURCES     := $(filter-out %_test.c %_fuzz.c, $(wildcard core/*.c))
LIB_SOURCES := $(filter-out core/main.c, $(SOURCES))
TEST_NAMES  := $(patsubst core/%.c, %, $(wildcard core/*_test.c))
FUZZ_NAMES  := $(patsubst core/%.c, %, $(wildcard core/*_fuzz.c))
LUA_SOURCES := $(sort $(shell find lua/perilune -name '*.lua' 2>/dev/null))
ASSETS      := $(sort $(wildcard core/dashboard/*))

LIB_OBJECTS := $(LIB_SOURCES:%.c=$(BUILD)/%.o) $(BUILD)/lua_bundle.o $(BUILD)/asset_bundle.o
TESTS       := $(TEST_NAMES:%=$(BUILD)/test/%)
C_FILES     := $(wildcard core/*.c core/*.h)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all help deps deps-run deps-test deps-lint run test test-c test-unit test-system \
        test-policies test-clients asan tsan lint format bench fuzz conformance install clean c-tests FORCE

# Short lines; V=1 for the whole commands.
V   ?=
say  = $(if $(V),,@printf '  %-7s %s\n' $(1) '$@';)

# For targets that build in a make of their own: all cores, unless -j was given.
BUILD_WITH = $(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))

# --- build ---------------------------------------------------------------------------------------

all: $(BUILD)/perilune ## build/perilune

# Put in place whole, so that one that runs, or is about to, is never half a binary.
$(BUILD)/perilune: $(BUILD)/core/main.o $(BUILD)/libperilune.a $(BUILD)/flags
	$(call say,LINK)$(CC) $(CFLAGS) $(LDFLAGS) -o $@.new $< $(BUILD)/libperilune.a $(LIBS)
	@mv $@.new $@

# Made anew each time, so that no object of a deleted source stays in.
$(BUILD)/libperilune.a: $(LIB_OBJECTS) $(BUILD)/sources
	@rm -f $@
	$(call say,AR)$(AR) rcs $@ $(LIB_OBJECTS)

$(BUILD)/core/%.o: core/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CPPFLAGS) $(CFLAGS) $(PKG_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/%_bundle.o: $(BUILD)/%_bundle.c core/bundle.h $(BUILD)/flags
	$(call say,CC)$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(BUILD)/lua_bundle.c: core/embed.lua $(LUA_SOURCES) $(BUILD)/sources
	$(call say,EMBED)$(LUAJIT) core/embed.lua lua $@ $(LUA_SOURCES)

$(BUILD)/asset_bundle.c: core/embed.lua $(ASSETS) $(BUILD)/sources
	$(call say,EMBED)$(LUAJIT) core/embed.lua --assets $@ $(ASSETS)

# What was compiled and how; when that changes, what depends on it is made again.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS)' | cmp -s - $@ || \
	  echo '$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS)' > $@

$(BUILD)/sources: FORCE
	@mkdir -p $(@D)
	@echo '$(LIB_SOURCES) $(LUA_SOURCES) $(ASSETS)' | cmp -s - $@ || \
	  echo '$(LIB_SOURCES) $(LUA_SOURCES) $(ASSETS)' > $@

-include $(wildcard $(BUILD)/core/*.d)

install: $(BUILD)/perilune ## PREFIX=/usr/local, DESTDIR=: the binary and the sample policies
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/share/perilune/policies'
	install -m 755 $(BUILD)/perilune '$(DESTDIR)$(PREFIX)/bin/perilune'
	install -m 644 policies/*.lua '$(DESTDIR)$(PREFIX)/share/perilune/policies/'

clean: ## remove build/
	rm -rf build

# --- packages ------------------------------------------------------------------------------------

deps: ## install the packages for build, run and test that are missing (apt-get; Debian, Ubuntu)
	@.ci/deps $(TEST_PACKAGES)

deps-run:
	@.ci/deps $(RUN_PACKAGES)

deps-test:
	@.ci/deps $(TEST_PACKAGES)
	@.ci/deps --clients

deps-lint:
	@.ci/deps $(LINT_PACKAGES)

# --- run -----------------------------------------------------------------------------------------

run: deps-run ## the gateway with policies/ and two simulated providers; Ctrl-C ends it
	+@$(BUILD_WITH) all
	@PERILUNE_BIN=$(BUILD)/perilune exec examples/quickstart/run

# --- test ----------------------------------------------------------------------------------------

# The packages come first and the rest in a second make: it must see what they brought.
test: deps-test ## all: C unit tests, Lua specs, system specs, the official clients (when npm is there)
	+@$(BUILD_WITH) all c-tests
	@BUILD=$(BUILD) spec/support/run_suites c unit policies system clients

test-c: c-tests ## only the C unit tests
	@BUILD=$(BUILD) spec/support/run_suites c

test-unit: ## only the Lua specs without network
	@BUILD=$(BUILD) spec/support/run_suites unit

test-policies: all ## only the specs that perilune test runs: policies/, examples/, spec/kit
	@BUILD=$(BUILD) spec/support/run_suites policies

test-system: all ## only the specs against the real binary; SPECS=file... for some
	@BUILD=$(BUILD) spec/support/run_suites system

test-clients: all ## only the official clients (needs node and npm)
	@BUILD=$(BUILD) spec/support/run_suites clients

c-tests: $(TESTS)

$(BUILD)/test/%: $(BUILD)/core/%.o $(BUILD)/libperilune.a
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< $(BUILD)/libperilune.a $(LIBS) -lcmocka

asan: deps-test ## the same tests, built with address and undefined behaviour sanitizers
	+@$(BUILD_WITH) BUILD=build/asan SANITIZE=address,undefined all c-tests
	@BUILD=build/asan spec/support/run_suites c policies system

tsan: deps-test ## the same tests, built with the thread sanitizer
	+@$(BUILD_WITH) BUILD=build/tsan SANITIZE=thread all c-tests
	@BUILD=build/tsan spec/support/run_suites c system

# --- checks --------------------------------------------------------------------------------------

lint: deps-lint ## layout, static analysis, Lua style, layers
	spec/lint/run $(C_FILES)

format: ## rewrite the C files as .clang-format says
	clang-format -i $(C_FILES)

bench: all ## the numbers of the design, as ratios in one run
	PERILUNE_BIN=$(BUILD)/perilune spec/bench/run

# --- fuzzing -------------------------------------------------------------------------------------

FUZZ_SECONDS ?= 60
CORPORA      ?=

fuzz: ## libFuzzer over core/*_fuzz.c; FUZZ_SECONDS=60 each, CORPORA=dir with seeds in dir/<name>
	@.ci/deps $(FUZZ_PACKAGES)
	+@$(BUILD_WITH) BUILD=build/fuzz CC=clang SANITIZE=fuzzer-no-link,address,undefined \
	  $(FUZZ_NAMES:%=build/fuzz/fuzz/%)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) CORPORA='$(CORPORA)' spec/support/run_fuzzers build/fuzz $(FUZZ_NAMES)

$(BUILD)/fuzz/%: $(BUILD)/core/%.o $(BUILD)/libperilune.a
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) $(CFLAGS) $(LDFLAGS) -fsanitize=fuzzer -o $@ $< $(BUILD)/libperilune.a $(LIBS)

conformance: all c-tests ## the specs over CORPORA=dir of test corpora
	@test -d '$(CORPORA)' || { echo 'usage: make conformance CORPORA=dir' >&2; exit 2; }
	@BUILD=$(BUILD) CORPORA='$(abspath $(CORPORA))' spec/support/run_suites conformance

help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24
