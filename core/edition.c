/*
 * Edition: see edition.h.
 */
#include "edition.h"
#include "bind.h"
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOAD_BURST_US (2000 * 1000)

struct entry {
    const struct pl_config *config;
    struct pl_generation *generation;
    char **banner;
};

/* Leaves nothing; the entry function goes into the registry. */
static void load_entry(lua_State *L, void *arg)
{
    struct entry *self = arg;
    pl_vm_require(L, "perilune.boot");
    lua_getfield(L, -1, self->config->is_simulator ? "simulator" : "gateway");
    lua_call(L, pl_config_push_sources(L, self->config), 2);
    if (lua_isstring(L, -1) && !*self->banner)
        *self->banner = pl_xstrdup(lua_tostring(L, -1));
    lua_pop(L, 1);
    self->generation->entry_ref = luaL_ref(L, LUA_REGISTRYINDEX);
}

static struct pl_generation *load_generation(struct pl_edition *self, char *error,
                                             size_t error_size)
{
    const struct pl_config *config = self->config;
    struct pl_generation *generation = pl_generation_new(&config->vm_limits, &config->topology);
    if (!generation) {
        snprintf(error, error_size, "the script engine does not fit its memory");
        return NULL;
    }
    struct entry entry = {config, generation, &self->banner};
    struct pl_vm *vm = generation->vm;
    generation->figures = self->figures;
    generation->charges = self->charges;
    vm->limits.burst_us = LOAD_BURST_US;
    vm->limits.request_us = 0;
    if (pl_vm_call(vm, load_entry, &entry, error, error_size) != PL_OK) {
        pl_generation_free(generation);
        return NULL;
    }
    vm->limits = config->vm_limits;
    return generation;
}

struct pl_edition *pl_edition_new(struct pl_config *config, size_t worker_count,
                                  void (*notify)(void *arg), void *arg, char *error,
                                  size_t error_size)
{
    struct pl_edition *self = pl_xcalloc(1, sizeof(*self));
    self->config = config;
    self->figures = pl_figures_new();
    self->charges = pl_charges_new(notify, arg);
    self->generation_count = worker_count;
    self->generations = pl_xcalloc(worker_count + 1, sizeof(struct pl_generation *));
    self->file_count = config->file_count;
    memcpy(self->digest, config->digest, sizeof(self->digest));
    for (size_t i = 0; i < worker_count; i++) {
        self->generations[i] = load_generation(self, error, error_size);
        if (!self->generations[i]) {
            self->config = NULL;
            pl_edition_free(self);
            return NULL;
        }
    }
    return self;
}

static bool has_generations(const struct pl_edition *self)
{
    for (size_t i = 0; i < self->generation_count; i++) {
        if (self->generations[i])
            return true;
    }
    return false;
}

bool pl_edition_collect(struct pl_edition *self)
{
    for (size_t i = 0; i < self->generation_count; i++) {
        struct pl_generation *generation = self->generations[i];
        if (generation && pl_generation_is_closed(generation)) {
            pl_generation_free(generation);
            self->generations[i] = NULL;
        }
    }
    return !has_generations(self);
}

void pl_edition_forget(struct pl_edition *self)
{
    pl_config_unref(self->config);
    self->config = NULL;
}

void pl_edition_free(struct pl_edition *self)
{
    if (!self)
        return;
    for (size_t i = 0; i < self->generation_count; i++)
        pl_generation_free(self->generations[i]);
    free(self->generations);
    pl_config_unref(self->config);
    pl_figures_free(self->figures);
    pl_charges_free(self->charges);
    free(self->banner);
    free(self);
}

const char *pl_edition_state_name(const struct pl_edition *self)
{
    static const char *const names[] = {
        [PL_EDITION_LOADED] = "loaded", [PL_EDITION_CURRENT] = "current",
        [PL_EDITION_CANARY] = "canary", [PL_EDITION_RETIRED] = "retired",
        [PL_EDITION_FAILED] = "failed",
    };
    if (self->state == PL_EDITION_RETIRED && has_generations(self))
        return "draining";
    return names[self->state];
}
