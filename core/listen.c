/*
 * Listen: see listen.h.
 */
#include "listen.h"
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 4096

static int open_socket(const struct addrinfo *info, bool shared)
{
    int on = 1;
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* accepted sockets inherit it */
    if ((shared && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0) ||
        bind(fd, info->ai_addr, info->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static uint16_t bound_port(int fd)
{
    struct sockaddr_storage storage;
    socklen_t len = sizeof(storage);
    if (getsockname(fd, (struct sockaddr *)&storage, &len) != 0)
        return 0;
    if (storage.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)&storage)->sin6_port);
    return ntohs(((struct sockaddr_in *)&storage)->sin_port);
}

int pl_listen(const char *address, uint16_t *port, bool shared, char *error, size_t error_size)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *info;
    char service[8];
    snprintf(service, sizeof(service), "%u", *port);
    const char *host = strcmp(address, "localhost") == 0 ? "127.0.0.1" : address;
    int rc = getaddrinfo(host, service, &hints, &info);
    if (rc != 0) {
        snprintf(error, error_size, "%s is not a numeric address: %s", address, gai_strerror(rc));
        return -1;
    }
    int fd = open_socket(info, shared);
    if (fd < 0)
        snprintf(error, error_size, "cannot listen on %s port %u: %s", address, *port,
                 strerror(errno));
    else
        *port = bound_port(fd);
    freeaddrinfo(info);
    return fd;
}

/* ---- unix sockets ---- */

/* Takes a socket away that a gateway which is gone has left behind. 0, or an errno. */
static int clear_path(const struct sockaddr_un *address)
{
    struct stat st;
    if (lstat(address->sun_path, &st) != 0)
        return errno == ENOENT ? 0 : errno;
    if (!S_ISSOCK(st.st_mode))
        return EEXIST;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    int rc = connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ? 0 : errno;
    close(fd);
    if (rc == 0)
        return EADDRINUSE;
    if (rc != ECONNREFUSED)
        return rc;
    return unlink(address->sun_path) == 0 ? 0 : errno;
}

/* The mode is there from the first moment on: umask is the process's, so no thread may run yet. */
static int bind_private(int fd, const struct sockaddr_un *address)
{
    mode_t before = umask(0177);
    int rc = bind(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ? 0 : errno;
    umask(before);
    return rc;
}

int pl_listen_unix(const char *path, char *error, size_t error_size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = -1;
    int rc = strlen(path) < sizeof(address.sun_path) ? 0 : ENAMETOOLONG;
    if (rc == 0) {
        memcpy(address.sun_path, path, strlen(path) + 1);
        rc = clear_path(&address);
    }
    if (rc == 0) {
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        rc = fd < 0 ? errno : bind_private(fd, &address);
    }
    if (rc == 0)
        rc = listen(fd, BACKLOG) == 0 ? 0 : errno;
    if (rc == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    snprintf(error, error_size, "cannot listen on unix:%s: %s", path, strerror(rc));
    return -1;
}

/* ---- texts ---- */

int pl_listen_parse(const char *text, char **address, uint16_t *port)
{
    const char *colon = strrchr(text, ':');
    if (!colon || colon == text || colon[1] == '\0' ||
        strspn(colon + 1, "0123456789") != strlen(colon + 1))
        return PL_ERR_SYNTAX;
    unsigned long number = strtoul(colon + 1, NULL, 10);
    if (number > 65535 || strlen(colon + 1) > 5)
        return PL_ERR_SYNTAX;
    size_t len = (size_t)(colon - text);
    if (text[0] == '[') {
        if (len < 3 || text[len - 1] != ']')
            return PL_ERR_SYNTAX;
        text++;
        len -= 2;
    } else if (memchr(text, ':', len)) {
        return PL_ERR_SYNTAX;
    }
    *address = pl_xstrndup(text, len);
    *port = (uint16_t)number;
    return PL_OK;
}
