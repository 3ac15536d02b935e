/*
 * Config files: the bytes of a policies directory, and what env, secret and file answer. See
 * config.h.
 */
#include "bind.h"
#include "config_internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define READ_TURNS_MAX 5

char *pl_config_format(const char *fmt, ...)
{
    char *out = NULL;
    va_list args;
    va_start(args, fmt);
    if (vasprintf(&out, fmt, args) < 0)
        abort();
    va_end(args);
    return out;
}

/* ---- files ---- */

/* Reads a regular file of at most `max_bytes`; NULL with `*problem` set. */
static char *read_file(const char *path, size_t max_bytes, size_t *len, char **problem)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO would wait for its writer */
    FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;
    char *data = NULL;
    if (!file || fstat(fd, &st) != 0) {
        *problem = pl_xstrdup(strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        *problem = pl_xstrdup("is not a regular file");
    } else if ((size_t)st.st_size > max_bytes) {
        *problem = pl_config_format("is larger than %zu bytes", max_bytes);
    } else {
        data = pl_xmalloc((size_t)st.st_size + 1);
        *len = fread(data, 1, (size_t)st.st_size, file);
        data[*len] = '\0';
        if (ferror(file)) {
            *problem = pl_xstrdup(strerror(errno));
            free(data);
            data = NULL;
        }
    }
    if (file)
        fclose(file);
    return data;
}

static bool is_lua_file(const char *name)
{
    size_t len = strlen(name);
    return name[0] != '.' && len > 4 && strcmp(name + len - 4, ".lua") == 0;
}

static uint64_t mix(uint64_t hash, const void *data, size_t len)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u; /* FNV-1a */
    return hash;
}

/* Follows links: where files are put in place by moving a link, another inode answers. */
static uint64_t mix_file(uint64_t hash, const char *path)
{
    struct stat st = {0};
    int failed = stat(path, &st) == 0 ? 0 : errno;
    uint64_t seen[] = {(uint64_t)failed,
                       (uint64_t)st.st_dev,
                       (uint64_t)st.st_ino,
                       (uint64_t)st.st_size,
                       (uint64_t)st.st_mode,
                       (uint64_t)st.st_mtim.tv_sec,
                       (uint64_t)st.st_mtim.tv_nsec,
                       (uint64_t)st.st_ctim.tv_sec,
                       (uint64_t)st.st_ctim.tv_nsec};
    return mix(mix(hash, path, strlen(path)), seen, sizeof(seen));
}

/* Folders whose files can be required: no dots, so that what Kubernetes keeps beside the links to
 * it
 * (..data) is left out. */
static bool is_module_folder(const char *name, size_t depth)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    return name[strspn(name, allowed)] == '\0' && depth < PL_CONFIG_MAX_DEPTH &&
           !(depth == 0 && strcmp(name, "spec") == 0);
}

/* A walk through the directory, which reads the files into `config`, or only looks at them; `seen`
 * are the folders that have been read, which links may lead back to. */
struct walk {
    struct pl_config *config;
    uint64_t *hash; /* of what was looked at; NULL: read it */
    char **problems;
    struct {
        dev_t device;
        ino_t inode;
    } seen[PL_CONFIG_MAX_FOLDERS];
    size_t seen_count;
};

static int fail_walk(struct walk *self, const char *name, char *problem)
{
    *self->problems = pl_config_format("%s: %s", name, problem);
    free(problem);
    return PL_ERR_SYSTEM;
}

static int add_file(struct walk *self, const char *name)
{
    struct pl_config *config = self->config;
    char *problem = NULL, *path = pl_config_format("%s/%s", config->directory, name);
    size_t len;
    char *data = NULL;
    if (config->file_count == PL_CONFIG_MAX_FILES)
        problem = pl_config_format("more than %d .lua files in the directory", PL_CONFIG_MAX_FILES);
    else
        data = read_file(path, PL_CONFIG_MAX_FILE_BYTES, &len, &problem);
    free(path);
    if (!data)
        return fail_walk(self, name, problem);
    config->files = pl_xrealloc(config->files, (config->file_count + 1) * sizeof(*config->files));
    config->files[config->file_count++] = (struct pl_config_file){pl_xstrdup(name), data, len};
    return PL_OK;
}

static int look_at_file(struct walk *self, const char *name)
{
    char *path = pl_config_format("%s/%s", self->config->directory, name);
    *self->hash = mix_file(*self->hash, path);
    free(path);
    return PL_OK;
}

int pl_config_set_file(struct pl_config *self, const struct pl_config_file *file, char **problems)
{
    if (file->len > PL_CONFIG_MAX_FILE_BYTES) {
        *problems =
            pl_config_format("%s: is larger than %d bytes", file->name, PL_CONFIG_MAX_FILE_BYTES);
        return PL_ERR_LIMIT;
    }
    size_t i = 0;
    while (i < self->file_count && strcmp(self->files[i].name, file->name) != 0)
        i++;
    if (i == self->file_count) {
        self->files = pl_xrealloc(self->files, (i + 1) * sizeof(*self->files));
        self->files[self->file_count++] = (struct pl_config_file){.name = pl_xstrdup(file->name)};
    }
    free(self->files[i].data);
    self->files[i].data = pl_xstrndup(file->data, file->len);
    self->files[i].len = file->len;
    return PL_OK;
}

/* Whether the folder is to be read: it is one, and has not been read under another name. */
static bool enter_folder(struct walk *self, const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        return false;
    for (size_t i = 0; i < self->seen_count; i++) {
        if (self->seen[i].device == st.st_dev && self->seen[i].inode == st.st_ino)
            return false;
    }
    if (self->seen_count < PL_CONFIG_MAX_FOLDERS) {
        self->seen[self->seen_count].device = st.st_dev;
        self->seen[self->seen_count].inode = st.st_ino;
    }
    self->seen_count++;
    return true;
}

static int read_folder(struct walk *self, const char *prefix, size_t depth);

static int read_entry(struct walk *self, const char *prefix, const char *name, size_t depth)
{
    char *inner = pl_config_format("%s%s", prefix, name);
    int rc = PL_OK;
    if (is_lua_file(name)) {
        rc = self->hash ? look_at_file(self, inner) : add_file(self, inner);
    } else if (is_module_folder(name, depth)) {
        char *folder = pl_config_format("%s/", inner);
        rc = read_folder(self, folder, depth + 1);
        free(folder);
    }
    free(inner);
    return rc;
}

/* `prefix` is "" for the directory itself, else "lib/". What may not be read, as lost+found, is no
 * folder of ours. */
static int read_folder(struct walk *self, const char *prefix, size_t depth)
{
    struct dirent **entries = NULL;
    char *path = pl_config_format("%s/%s", self->config->directory, prefix);
    int rc = PL_OK;
    int count =
        depth == 0 || enter_folder(self, path) ? scandir(path, &entries, NULL, alphasort) : 0;
    if (count < 0 && (depth == 0 || errno != EACCES))
        rc = fail_walk(self, depth == 0 ? self->config->directory : prefix,
                       pl_xstrdup(strerror(errno)));
    else if (self->seen_count > PL_CONFIG_MAX_FOLDERS)
        rc = fail_walk(self, self->config->directory,
                       pl_config_format("more than %d folders in it", PL_CONFIG_MAX_FOLDERS));
    for (int i = 0; i < count; i++) {
        if (rc == PL_OK)
            rc = read_entry(self, prefix, entries[i]->d_name, depth);
        free(entries[i]);
    }
    free(entries);
    free(path);
    return rc;
}

/* Reads the files, or only looks at them, into `hash`. */
static int walk_directory(struct pl_config *self, uint64_t *hash, char **problems)
{
    struct walk walk = {.config = self, .problems = problems, .hash = hash};
    (void)enter_folder(&walk, self->directory);
    return read_folder(&walk, "", 0);
}

static void drop_files(struct pl_config *self)
{
    for (size_t i = 0; i < self->file_count; i++) {
        free(self->files[i].name);
        free(self->files[i].data);
    }
    self->file_count = 0;
}

/* Files that are replaced one after the other while they are read would make a mixture that nobody
 * wrote: it is read again until nothing has moved meanwhile. */
int pl_config_read_directory(struct pl_config *self, char **problems)
{
    for (int turn = 1;; turn++) {
        uint64_t before = pl_config_fingerprint(self);
        int rc = walk_directory(self, NULL, problems);
        self->fingerprint = before;
        if (pl_config_fingerprint(self) == before || turn == READ_TURNS_MAX)
            return rc;
        free(*problems);
        *problems = NULL;
        drop_files(self);
    }
}

/* ---- what has changed ---- */

uint64_t pl_config_file_mark(const char *path)
{
    return mix_file(0, path);
}

/* Before the file is read, so that what changes meanwhile is seen to differ. */
void pl_config_add_path(struct pl_config *self, const char *path)
{
    self->paths = pl_xrealloc(self->paths, (self->path_count + 1) * sizeof(*self->paths));
    self->paths[self->path_count++] = pl_xstrdup(path);
    self->fingerprint = mix_file(self->fingerprint, path);
}

uint64_t pl_config_fingerprint(const struct pl_config *self)
{
    char *problems = NULL;
    uint64_t hash = 0xcbf29ce484222325u;
    if (walk_directory((struct pl_config *)self, &hash, &problems) != PL_OK)
        hash = mix(hash, problems, strlen(problems));
    free(problems);
    for (size_t i = 0; i < self->path_count; i++)
        hash = mix_file(hash, self->paths[i]);
    return hash;
}

void pl_config_digest(struct pl_config *self)
{
    unsigned char hash[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (!context || EVP_DigestInit_ex(context, EVP_sha256(), NULL) != 1)
        abort();
    for (size_t i = 0; i < self->file_count; i++) {
        const struct pl_config_file *file = &self->files[i];
        EVP_DigestUpdate(context, file->name, strlen(file->name) + 1);
        EVP_DigestUpdate(context, &file->len, sizeof(file->len));
        EVP_DigestUpdate(context, file->data, file->len);
    }
    for (size_t i = 0; i < self->value_count; i++) {
        const struct pl_config_value *value = &self->values[i];
        EVP_DigestUpdate(context, value->name, strlen(value->name) + 1);
        if (value->value)
            EVP_DigestUpdate(context, value->value, strlen(value->value) + 1);
    }
    EVP_DigestFinal_ex(context, hash, NULL);
    EVP_MD_CTX_free(context);
    for (size_t i = 0; i < (sizeof(self->digest) - 1) / 2; i++)
        snprintf(&self->digest[2 * i], 3, "%02x", hash[i]);
}

/* ---- helpers: env, secret, file ---- */

static const char *variable(const struct pl_config *self, const char *name)
{
    const struct pl_config_source *source = self->source;
    if (!source || !source->environment)
        return getenv(name);
    for (size_t i = 0; i < source->variable_count; i++) {
        if (strcmp(source->environment[i].name, name) == 0)
            return source->environment[i].value;
    }
    return NULL;
}

static struct pl_config_value look_up_env(const struct pl_config *self, const char *name)
{
    const char *value = variable(self, name);
    return (struct pl_config_value){.value = value ? pl_xstrdup(value) : NULL};
}

static struct pl_config_value look_up_file(struct pl_config *self, const char *name)
{
    struct pl_config_value result = {0};
    const char *directory = self->directory;
    char *path = name[0] == '/' || !directory ? pl_xstrdup(name)
                                              : pl_config_format("%s/%s", directory, name);
    size_t len;
    pl_config_add_path(self, path);
    result.value = read_file(path, PL_CONFIG_MAX_FILE_BYTES, &len, &result.problem);
    free(path);
    return result;
}

static struct pl_config_value look_up_secret(struct pl_config *self, const char *name)
{
    struct pl_config_value result = look_up_env(self, name);
    char *file_variable = pl_config_format("%s_FILE", name);
    const char *path = variable(self, file_variable);
    if (!result.value && path)
        result = look_up_file(self, path);
    free(file_variable);
    return result;
}

static const struct pl_config_value *look_up(struct pl_config *self, const char *helper,
                                             const char *name)
{
    for (size_t i = 0; i < self->value_count; i++) {
        if (strcmp(self->values[i].helper, helper) == 0 && strcmp(self->values[i].name, name) == 0)
            return &self->values[i];
    }
    if (!self->recording)
        return NULL;
    struct pl_config_value found;
    if (strcmp(helper, "env") == 0)
        found = look_up_env(self, name);
    else if (strcmp(helper, "secret") == 0)
        found = look_up_secret(self, name);
    else
        found = look_up_file(self, name);
    found.helper = helper;
    found.name = pl_xstrdup(name);
    self->values = pl_xrealloc(self->values, (self->value_count + 1) * sizeof(*self->values));
    self->values[self->value_count] = found;
    return &self->values[self->value_count++];
}

/* helper(name) -> string | nil, problem; upvalues: the config, the helper's name */
static int call_helper(lua_State *L)
{
    struct pl_config *self = lua_touserdata(L, lua_upvalueindex(1));
    const char *helper = lua_touserdata(L, lua_upvalueindex(2));
    const struct pl_config_value *found = look_up(self, helper, luaL_checkstring(L, 1));
    lua_pushstring(L, found ? found->value : NULL);
    lua_pushstring(L, found ? found->problem : "was not asked for when the file was checked");
    return 2;
}

static void push_helpers(lua_State *L, const struct pl_config *self)
{
    static const char *const names[] = {"env", "secret", "file"};
    lua_newtable(L);
    for (size_t i = 0; i < PL_COUNT(names); i++) {
        lua_pushlightuserdata(L, (void *)self);
        lua_pushlightuserdata(L, (void *)names[i]);
        lua_pushcclosure(L, call_helper, 2);
        lua_setfield(L, -2, names[i]);
    }
}

int pl_config_push_sources(lua_State *L, const struct pl_config *self)
{
    lua_newtable(L);
    if (self->is_simulator) {
        for (int i = 0; i < self->argument_count; i++) {
            lua_pushstring(L, self->arguments[i]);
            lua_rawseti(L, -2, i + 1);
        }
        return 1;
    }
    for (size_t i = 0; i < self->file_count; i++) {
        lua_pushlstring(L, self->files[i].data, self->files[i].len);
        lua_setfield(L, -2, self->files[i].name);
    }
    push_helpers(L, self);
    return 2;
}
