/* Preloaded into vecd: kills it with SIGKILL at the Nth time that it comes to a named point.

   VEC_CRASH names a file of 40 bytes, which is mapped: a point's name of up to 31 letters, and N, which counts down. The
   test writes them at any time, N last; at 0 nothing is armed. The points here are system calls on files or sockets;
   those that make no system call of their own are passed by vecd.py, which calls vec_crash_point. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct control {
    char name[32];
    atomic_long left;
};

static struct control nothing, *control = &nothing;

__attribute__((constructor)) static void map(void)
{
    const char *path = getenv("VEC_CRASH");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *there = mmap(0, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (there != MAP_FAILED)
        control = there;
}

static int armed(const char *name)
{
    return atomic_load(&control->left) > 0 && strcmp(name, control->name) == 0;
}

void vec_crash_point(const char *name)
{
    if (armed(name) && atomic_fetch_sub(&control->left, 1) == 1) {
        kill(getpid(), SIGKILL);
        pause();
    }
}

enum kind { OTHER, LOG, STORE, PLAIN, INDEX, SOCKET };

static enum kind kind_of(int fd)
{
    struct stat info;
    char link[64], path[PATH_MAX] = {0};
    if (atomic_load(&control->left) <= 0 || fstat(fd, &info) != 0)
        return OTHER;
    if (S_ISSOCK(info.st_mode))
        return SOCKET;
    if (!S_ISREG(info.st_mode))
        return OTHER;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length >= 11 && strcmp(path + length - 11, "/vec.db-wal") == 0)
        return LOG;
    if (length >= 7 && strcmp(path + length - 7, "/vec.db") == 0)
        return STORE;
    return strstr(path, "/indexes/") ? INDEX : PLAIN;
}

static void at(enum kind kind, const char *log, const char *store, const char *plain, const char *socket)
{
    const char *name = kind == LOG ? log : kind == STORE ? store : kind == SOCKET ? socket : 0;
    if (kind == PLAIN || kind == INDEX)
        name = plain;
    if (name)
        vec_crash_point(name);
}

/* Offset of the last write to the write-ahead log while a point was armed. When the log restarts, its header, at 0, is
   synced separately before the pages of the commit are written. */
static _Atomic off_t last_of_log = -1;

#define SYNC(name)                                                             \
    int name(int fd)                                                           \
    {                                                                          \
        int (*real)(int) = dlsym(RTLD_NEXT, #name);                            \
        enum kind kind = kind_of(fd);                                          \
        if (kind == LOG && atomic_load(&last_of_log) == 0)                     \
            kind = OTHER;                                                      \
        at(kind, "commit.sync", "checkpoint.sync", "file.sync", 0);            \
        int result = real(fd);                                                 \
        at(kind, "commit.synced", "checkpoint.synced", "file.synced", 0);      \
        return result;                                                         \
    }
SYNC(fsync)
SYNC(fdatasync)

/* Writes half of the data before the kill: a torn page of the log. */
#define PWRITE(name, offset_type)                                                          \
    ssize_t name(int fd, const void *data, size_t count, offset_type offset)               \
    {                                                                                      \
        ssize_t (*real)(int, const void *, size_t, offset_type) = dlsym(RTLD_NEXT, #name); \
        enum kind kind = kind_of(fd);                                                      \
        at(kind, "commit.write", "checkpoint.write", "file.write", 0);                     \
        if (kind == LOG && armed("commit.torn") && atomic_load(&control->left) == 1)   \
            real(fd, data, count / 2, offset);                                             \
        at(kind, "commit.torn", 0, 0, 0);                                                  \
        if (kind == LOG)                                                                   \
            atomic_store(&last_of_log, offset);                                            \
        return real(fd, data, count, offset);                                              \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t count)
{
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    enum kind kind = kind_of(fd);
    if (kind == INDEX)
        vec_crash_point("snapshot.write");
    at(kind, 0, 0, 0, "answer");
    ssize_t result = real(fd, data, count);
    at(kind, 0, 0, 0, "answered");
    return result;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    ssize_t (*real)(int, const struct iovec *, int) = dlsym(RTLD_NEXT, "writev");
    enum kind kind = kind_of(fd);
    at(kind, 0, 0, 0, "answer");
    ssize_t result = real(fd, parts, count);
    at(kind, 0, 0, 0, "answered");
    return result;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    ssize_t (*real)(int, const struct msghdr *, int) = dlsym(RTLD_NEXT, "sendmsg");
    at(SOCKET, 0, 0, 0, "answer");
    ssize_t result = real(fd, message, flags);
    at(SOCKET, 0, 0, 0, "answered");
    return result;
}

ssize_t send(int fd, const void *data, size_t count, int flags)
{
    ssize_t (*real)(int, const void *, size_t, int) = dlsym(RTLD_NEXT, "send");
    at(SOCKET, 0, 0, 0, "answer");
    ssize_t result = real(fd, data, count, flags);
    at(SOCKET, 0, 0, 0, "answered");
    return result;
}

int rename(const char *from, const char *to)
{
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
    vec_crash_point("rename");
    int result = real(from, to);
    vec_crash_point("renamed");
    return result;
}

int unlink(const char *path)
{
    int (*real)(const char *) = dlsym(RTLD_NEXT, "unlink");
    vec_crash_point("unlink");
    int result = real(path);
    vec_crash_point("unlinked");
    return result;
}

#define TRUNCATE(name, length_type)                                  \
    int name(int fd, length_type length)                             \
    {                                                                \
        int (*real)(int, length_type) = dlsym(RTLD_NEXT, #name);     \
        enum kind kind = kind_of(fd);                                \
        at(kind, 0, "shrink", 0, 0);                                 \
        return real(fd, length);                                     \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)
