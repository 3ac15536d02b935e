/*
 * VM, strings: see vm_string.h.
 *
 * Any call into Lua may raise an error and leave by longjmp, so nothing here is held in C: what
 * gsub builds lies in its own frame while it is short, and in a userdata on the Lua stack beyond.
 * The steps are counted in the VM: many short matches cost as much as a long one.
 */
#include "vm_string.h"
#include "pattern.h"
#include "vm.h"
#include <lauxlib.h>
#include <lualib.h>
#include <stdint.h>

#define GSUB_STACK_MAX_BYTES (1024 * 1024)
#define OUTPUT_SMALL_BYTES   512
#define BYTES_PER_STEP       16 /* where memcpy does the work */
#define STEPS_PER_CALL       16 /* of a replacement function */

/* The budget has been looked at: an error if it is over, else so many steps until the next look. */
static bool look(void *arg)
{
    lua_State *L = arg;
    pl_vm_check_budget(L);
    pl_vm_of(L)->patterns.left_count = PL_VM_STEPS_PER_LOOK;
    return true;
}

/* The subject must stay on the stack while it is matched. */
static inline void begin(struct pl_pattern *match, lua_State *L, struct pl_str subject)
{
    struct pl_vm *vm = pl_vm_of(L);
    if (vm->overrun)
        pl_vm_check_budget(L);
    vm->patterns.look = look;
    vm->patterns.arg = L;
    pl_pattern_init(match, subject, &vm->patterns);
}

static inline void begin_argument(struct pl_pattern *match, lua_State *L)
{
    struct pl_str subject;
    subject.data = luaL_checklstring(L, 1, &subject.len);
    begin(match, L, subject);
}

static void check_error(lua_State *L, const struct pl_pattern *match)
{
    if (match->error)
        luaL_error(L, "%s", match->error);
}

/* ---- captures ---- */

/* Without captures, the first one is the whole match. */
static void push_capture(lua_State *L, const struct pl_pattern *match, int index, const char *start,
                         const char *end)
{
    if (index == 0 && match->capture_count == 0) {
        lua_pushlstring(L, start, (size_t)(end - start));
        return;
    }
    if (index < 0 || index >= match->capture_count)
        luaL_error(L, "invalid capture index");
    ptrdiff_t len = match->captures[index].len;
    if (len == PL_PATTERN_OPEN)
        luaL_error(L, "unfinished capture");
    if (len == PL_PATTERN_POSITION)
        lua_pushinteger(L, match->captures[index].start - match->subject + 1);
    else
        lua_pushlstring(L, match->captures[index].start, (size_t)len);
}

/* All of them; `start` may be NULL when the whole match is not wanted. Returns their count. */
static int push_captures(lua_State *L, const struct pl_pattern *match, const char *start,
                         const char *end)
{
    int count = match->capture_count == 0 && start ? 1 : match->capture_count;
    luaL_checkstack(L, count, "too many captures");
    for (int i = 0; i < count; i++)
        push_capture(L, match, i, start, end);
    return count;
}

/* ---- find, match ---- */

/* Where argument 3 says to begin: a position from 1 on, or from the end when negative. LuaJIT
 * reads it as 32 bits, which makes all that does not fit the start. */
static const char *first_place(lua_State *L, const struct pl_pattern *match)
{
    if (lua_isnoneornil(L, 3))
        return match->subject;
    lua_Integer position = luaL_checkinteger(L, 3);
    ptrdiff_t len = match->subject_end - match->subject;
    if (position > INT32_MAX || position < INT32_MIN)
        position = INT32_MIN;
    ptrdiff_t offset = position < 0 ? position + len : position - 1;
    return match->subject + PL_MIN(PL_MAX(offset, 0), len);
}

static int push_found(lua_State *L, const struct pl_pattern *match, const char *start,
                      const char *end)
{
    lua_pushinteger(L, start - match->subject + 1);
    lua_pushinteger(L, end - match->subject);
    return 2;
}

static int none_found(lua_State *L, const struct pl_pattern *match)
{
    check_error(L, match);
    lua_pushnil(L);
    return 1;
}

static int find_plain(lua_State *L, struct pl_pattern *match, const char *start,
                      struct pl_str needle)
{
    const char *found = pl_pattern_find_plain(match, start, needle);
    return found ? push_found(L, match, found, found + needle.len) : none_found(L, match);
}

/* Leaves `*start` at the match. A pattern that begins with ^ matches at the first place only. */
static const char *search(struct pl_pattern *match, const char **start, const char *pattern)
{
    return *pattern == '^' ? pl_pattern_match(match, *start, pattern + 1)
                           : pl_pattern_search(match, start, pattern);
}

static int string_find(lua_State *L)
{
    struct pl_pattern match;
    struct pl_str pattern;
    begin_argument(&match, L);
    pattern.data = luaL_checklstring(L, 2, &pattern.len);
    bool has_options = lua_gettop(L) > 2;
    const char *start = has_options ? first_place(L, &match) : match.subject;
    if ((has_options && lua_toboolean(L, 4)) || !pl_pattern_has_magic(pattern))
        return find_plain(L, &match, start, pattern);
    const char *end = search(&match, &start, pattern.data);
    if (!end)
        return none_found(L, &match);
    return push_found(L, &match, start, end) + push_captures(L, &match, NULL, NULL);
}

static int string_match(lua_State *L)
{
    struct pl_pattern match;
    begin_argument(&match, L);
    const char *pattern = luaL_checkstring(L, 2);
    const char *start = first_place(L, &match);
    const char *end = search(&match, &start, pattern);
    return end ? push_captures(L, &match, start, end) : none_found(L, &match);
}

/* ---- gmatch ---- */

/* Upvalue 1. The texts lie in upvalues 2 and 3, and strings do not move. */
struct iteration {
    struct pl_str subject;
    const char *pattern;
    const char *next; /* place; beyond the subject's end after an empty match there */
};

static int next_match(lua_State *L)
{
    struct iteration *self = lua_touserdata(L, lua_upvalueindex(1));
    struct pl_pattern match;
    const char *start = self->next;
    begin(&match, L, self->subject);
    if (start > match.subject_end)
        return 0;
    const char *end = pl_pattern_search(&match, &start, self->pattern);
    check_error(L, &match);
    if (!end)
        return 0;
    self->next = end + (end == start);
    return push_captures(L, &match, start, end);
}

static int string_gmatch(lua_State *L)
{
    struct pl_str subject;
    subject.data = luaL_checklstring(L, 1, &subject.len);
    const char *pattern = luaL_checkstring(L, 2);
    struct iteration *self = lua_newuserdata(L, sizeof(*self));
    *self = (struct iteration){subject, pattern, subject.data};
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, next_match, 3);
    return 1;
}

/* ---- gsub ---- */

/* Where gsub finds what, on its stack. */
enum { SUBJECT = 1, PATTERN, REPLACEMENT, MAX_COUNT, OUTPUT };

struct gsub {
    struct pl_pattern match;
    lua_State *L;
    const char *copied_to; /* in the subject; what lies before is in the output */
    struct pl_str text;    /* the replacement when it is one */
    bool is_literal;       /* it has no % */
    char *output;          /* `small`, or the userdata at OUTPUT */
    size_t len;
    size_t size_bytes;
    char small[OUTPUT_SMALL_BYTES];
};

static void grow(struct gsub *self, size_t more_bytes)
{
    size_t size_bytes = PL_MAX(self->len + more_bytes, 2 * self->size_bytes);
    char *output = lua_newuserdata(self->L, size_bytes);
    memcpy(output, self->output, self->len);
    lua_replace(self->L, OUTPUT);
    self->output = output;
    self->size_bytes = size_bytes;
}

static inline void add(struct gsub *self, const char *data, size_t len)
{
    if (len > self->size_bytes - self->len)
        grow(self, len);
    memcpy(self->output + self->len, data, len);
    self->len += len;
    pl_pattern_spend(&self->match, len / BYTES_PER_STEP);
}

/* Moves a string or number from the top of the stack. */
static void add_top(struct gsub *self)
{
    size_t len;
    const char *data = lua_tolstring(self->L, -1, &len);
    if (len > self->size_bytes - self->len)
        grow(self, len); /* the text stays where it is, below */
    add(self, data, len);
    lua_pop(self->L, 1);
}

/* A capture in a replacement text: %1; %0 is the whole match. */
static void add_capture(struct gsub *self, char digit, const char *start, const char *end)
{
    if (digit == '0') {
        add(self, start, (size_t)(end - start));
    } else {
        push_capture(self->L, &self->match, digit - '1', start, end);
        add_top(self);
    }
}

static void add_text(struct gsub *self, const char *start, const char *end)
{
    const char *text = self->text.data;
    const char *text_end = text + self->text.len;
    if (self->is_literal) {
        add(self, text, self->text.len);
        return;
    }
    while (text < text_end) {
        const char *percent = memchr(text, '%', (size_t)(text_end - text));
        add(self, text, (size_t)((percent ? percent : text_end) - text));
        if (!percent)
            return;
        pl_pattern_spend(&self->match, 2);
        char what = percent[1]; /* the terminating NUL where nothing follows, as LuaJIT has it */
        if (what >= '0' && what <= '9')
            add_capture(self, what, start, end);
        else
            add(self, &what, 1);
        text = percent + 2;
    }
}

/* Leaves what a function returns, or a table holds, for this match. */
static void push_value(struct gsub *self, const char *start, const char *end)
{
    lua_State *L = self->L;
    pl_pattern_spend(&self->match, STEPS_PER_CALL);
    if (lua_type(L, REPLACEMENT) == LUA_TTABLE) {
        push_capture(L, &self->match, 0, start, end);
        lua_gettable(L, REPLACEMENT);
        return;
    }
    lua_pushvalue(L, REPLACEMENT);
    lua_call(L, push_captures(L, &self->match, start, end), 1);
}

static void replace(struct gsub *self, const char *start, const char *end)
{
    lua_State *L = self->L;
    add(self, self->copied_to, (size_t)(start - self->copied_to));
    self->copied_to = end;
    if (self->text.data) {
        add_text(self, start, end);
        return;
    }
    push_value(self, start, end);
    if (lua_isstring(L, -1)) {
        add_top(self);
        return;
    }
    if (lua_toboolean(L, -1))
        luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
    add(self, start, (size_t)(end - start)); /* nil, false: it stays */
    lua_pop(L, 1);
}

/* After an empty match the next one begins a byte later. Returns how many were replaced. */
static int replace_all(struct gsub *self, const char *pattern, int max_count)
{
    bool anchored = *pattern == '^';
    const char *start = self->match.subject;
    int count = 0;
    while (count < max_count) {
        const char *end = search(&self->match, &start, pattern);
        check_error(self->L, &self->match);
        if (!end)
            break;
        count++;
        replace(self, start, end);
        if (anchored || start == self->match.subject_end)
            break;
        start = end > start ? end : start + 1;
    }
    return count;
}

/* LuaJIT bounds its own stack alone: replacement functions that call gsub again take C stack. */
static void check_stack(lua_State *L)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    if (pl_vm_of(L)->stack_start > here + GSUB_STACK_MAX_BYTES)
        luaL_error(L, "string.gsub: called within itself too often");
}

static void read_replacement(struct gsub *self, lua_State *L)
{
    int type = lua_type(L, REPLACEMENT);
    luaL_argcheck(L,
                  type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TFUNCTION ||
                      type == LUA_TTABLE,
                  REPLACEMENT, "string/function/table expected");
    self->text.data = lua_tolstring(L, REPLACEMENT, &self->text.len);
    self->is_literal = self->text.data && !memchr(self->text.data, '%', self->text.len);
}

static int string_gsub(lua_State *L)
{
    struct gsub self;
    check_stack(L);
    begin_argument(&self.match, L);
    const char *pattern = luaL_checkstring(L, PATTERN);
    ptrdiff_t subject_len = self.match.subject_end - self.match.subject;
    int max_count = (int)luaL_optinteger(L, MAX_COUNT, subject_len + 1);
    read_replacement(&self, L);
    lua_settop(L, MAX_COUNT);
    lua_pushnil(L); /* OUTPUT */
    self.L = L;
    self.copied_to = self.match.subject;
    self.output = self.small;
    self.len = 0;
    self.size_bytes = sizeof(self.small);
    int count = replace_all(&self, pattern, max_count);
    if (count == 0) {
        lua_pushvalue(L, SUBJECT);
    } else {
        add(&self, self.copied_to, (size_t)(self.match.subject_end - self.copied_to));
        lua_pushlstring(L, self.output, self.len);
    }
    lua_pushinteger(L, count);
    return 2;
}

void pl_vm_open_string(lua_State *L)
{
    static const luaL_Reg functions[] = {{"find", string_find},
                                         {"match", string_match},
                                         {"gmatch", string_gmatch},
                                         {"gsub", string_gsub},
                                         {NULL, NULL}};
    lua_getglobal(L, LUA_STRLIBNAME);
    luaL_register(L, NULL, functions);
    lua_pop(L, 1);
}
