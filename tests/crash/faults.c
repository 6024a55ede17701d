/* Preloaded into vecd: makes the file system fail while the file named by VEC_FAULT holds a word.
   "fsync": fsync and fdatasync fail with EIO.  "store": only those of vec.db itself, which is what a checkpoint does.
   "folder": those of folders fail with EINVAL, as on some network file systems.
   "full": writes to files fail with ENOSPC.  "tight": the same, as long as the file VEC_RESERVE is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int fault(const char *word)
{
    char text[16] = {0};
    const char *path = getenv("VEC_FAULT");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return 0;
    ssize_t (*real_read)(int, void *, size_t) = dlsym(RTLD_NEXT, "read");
    ssize_t count = real_read(fd, text, sizeof text - 1);
    close(fd);
    return count > 0 && strncmp(text, word, strlen(word)) == 0;
}

static int tight(void)
{
    const char *path = getenv("VEC_RESERVE");
    return fault("tight") && path && access(path, F_OK) == 0;
}

static int store(int fd)
{
    char link[64], path[PATH_MAX] = {0};
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    return length > 7 && strcmp(path + length - 7, "/vec.db") == 0;
}

static int regular(int fd)
{
    struct stat info;
    return fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
}

static int folder(int fd)
{
    struct stat info;
    return fstat(fd, &info) == 0 && S_ISDIR(info.st_mode);
}

#define SYNC(name)                                                   \
    int name(int fd)                                                 \
    {                                                                \
        int (*real)(int) = dlsym(RTLD_NEXT, #name);                  \
        if (fault("fsync") || (store(fd) && fault("store"))) {       \
            errno = EIO;                                             \
            return -1;                                               \
        }                                                            \
        if (folder(fd) && fault("folder")) {                         \
            errno = EINVAL;                                          \
            return -1;                                               \
        }                                                            \
        return real(fd);                                             \
    }
SYNC(fsync)
SYNC(fdatasync)

#define WRITE(name, offset_type)                                                          \
    ssize_t name(int fd, const void *data, size_t count, offset_type offset)              \
    {                                                                                     \
        ssize_t (*real)(int, const void *, size_t, offset_type) = dlsym(RTLD_NEXT, #name); \
        if (regular(fd) && (fault("full") || tight())) {                                               \
            errno = ENOSPC;                                                               \
            return -1;                                                                    \
        }                                                                                 \
        return real(fd, data, count, offset);                                             \
    }
WRITE(pwrite, off_t)
WRITE(pwrite64, off64_t)
