/* Preloaded into vecd: a file system that fails. It is steered by files, which the environment names.

   VEC_FAULT: a word, as long as the file holds it.
     "fsync"  fsync and fdatasync fail with EIO
     "store"  only those of vec.db itself, which is what a checkpoint does
     "full"   what needs space fails with ENOSPC
     "tight"  the same, as long as the file VEC_RESERVE is there
   VEC_FAULT_PLAN: "what number": the call of that number, from 1, to a file in VEC_HOME/data or a backup fails, once.
     "sync"   an fsync or fdatasync, with EIO
     "io"     a write, with EIO
     "full"   a write or allocation, with ENOSPC
     "fullon" all from there on that make a file longer, while the plan is there
     "short"  a write, which writes half and says so
     "torn"   a write, which writes half and fails with EIO
     The call that fails is noted in the file PLAN.hit.
   VEC_FAULT_TRACE: every such call is appended to this file: kind, length of the path, offset, length of the data; the
     path; the data. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static int syncs, writes, spaces; /* calls so far */

static int words(const char *variable, char *text, size_t size)
{
    const char *path = getenv(variable);
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return 0;
    ssize_t count = syscall(SYS_read, fd, text, size - 1);
    syscall(SYS_close, fd);
    text[count > 0 ? count : 0] = 0;
    return count > 0;
}

static int fault(const char *word)
{
    char text[16];
    return words("VEC_FAULT", text, sizeof text) && strncmp(text, word, strlen(word)) == 0;
}

static int tight(void)
{
    const char *path = getenv("VEC_RESERVE");
    return fault("tight") && path && access(path, F_OK) == 0;
}

static const char *path_of(int fd, char *path)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
    return path;
}

static int ends(const char *path, const char *end)
{
    size_t length = strlen(path), its = strlen(end);
    return length >= its && strcmp(path + length - its, end) == 0;
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

static int longer(int fd, off_t end)
{
    struct stat info;
    return fstat(fd, &info) == 0 && end > info.st_size;
}

/* Whether this is a data file of the daemon. */
static int data_file(const char *path)
{
    const char *home = getenv("VEC_HOME");
    size_t length = home ? strlen(home) : 0;
    if (!length || strncmp(path, home, length) || path[length] != '/')
        return 0;
    return !ends(path, ".log") && !ends(path, ".lock") && !ends(path, ".toml");
}

/* Whether calls to this file are counted: it must survive the daemon. */
static int ours(const char *path)
{
    return data_file(path) && !ends(path, "-shm");
}

static void trace(char kind, const char *path, uint64_t offset, const void *data, uint64_t count)
{
    static int fd = -2;
    if (fd == -2) {
        const char *file = getenv("VEC_FAULT_TRACE");
        fd = file ? open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    }
    if (fd < 0)
        return;
    unsigned char head[19];
    uint16_t length = strlen(path);
    head[0] = kind;
    memcpy(head + 1, &length, 2);
    memcpy(head + 3, &offset, 8);
    memcpy(head + 11, &count, 8);
    if (syscall(SYS_write, fd, head, sizeof head) < 0 || syscall(SYS_write, fd, path, length) < 0)
        abort();
    for (uint64_t done = 0; data && done < count;) {
        long more = syscall(SYS_write, fd, (const char *)data + done, count - done);
        if (more < 0)
            abort();
        done += more;
    }
}

/* Whether the plan makes this call fail; if so, `what` is the plan's word. */
static int planned(const char *kinds, int number, char *what, const char *path)
{
    char text[64];
    int at = 0;
    if (!words("VEC_FAULT_PLAN", text, sizeof text) || sscanf(text, "%15s %d", what, &at) != 2)
        return 0;
    if (strcmp(kinds, what) && (!strchr(kinds, ' ') || !strstr(kinds, what)))
        return 0;
    if (number != at && !(strcmp(what, "fullon") == 0 && number > at))
        return 0;
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%s.hit", getenv("VEC_FAULT_PLAN"));
    int fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd >= 0) {
        if (syscall(SYS_write, fd, path, strlen(path)) < 0 || syscall(SYS_write, fd, "\n", 1) < 0)
            abort();
        syscall(SYS_close, fd);
    }
    return 1;
}

#define SYNC(name)                                                                 \
    int name(int fd)                                                               \
    {                                                                              \
        int (*real)(int) = dlsym(RTLD_NEXT, #name);                                \
        char path[PATH_MAX], what[16];                                             \
        int failed = 0;                                                            \
        path_of(fd, path);                                                         \
        if (fault("fsync") || (ends(path, "/vec.db") && fault("store"))) {         \
            errno = EIO;                                                           \
            return -1;                                                             \
        }                                                                          \
        if (folder(fd) && fault("folder")) {                                       \
            errno = EINVAL;                                                        \
            return -1;                                                             \
        }                                                                          \
        if (!ours(path))                                                           \
            return real(fd);                                                       \
        pthread_mutex_lock(&lock);                                                 \
        if (planned("sync", ++syncs, what, path)) {                                \
            errno = EIO;                                                           \
            failed = -1;                                                           \
        } else if ((failed = real(fd)) == 0)                                       \
            trace('S', path, 0, NULL, 0);                                          \
        pthread_mutex_unlock(&lock);                                               \
        return failed;                                                             \
    }
SYNC(fsync)
SYNC(fdatasync)

static ssize_t put(int fd, const void *data, size_t count, off_t offset, int at)
{
    ssize_t (*real_at)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite64");
    char path[PATH_MAX], what[16] = "";
    path_of(fd, path);
    if (data_file(path) && regular(fd) && (fault("full") || tight())) {
        errno = ENOSPC;
        return -1;
    }
    if (!ours(path) || !regular(fd))
        return at ? real_at(fd, data, count, offset) : syscall(SYS_write, fd, data, count);
    pthread_mutex_lock(&lock);
    writes++, spaces++;
    ssize_t done;
    off_t place = at ? offset : fcntl(fd, F_GETFL) & O_APPEND ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
    if (planned("full", spaces, what, path) || (longer(fd, place + count) && planned("fullon", spaces, what, path))) {
        errno = ENOSPC;
        done = -1;
    } else if (planned("io", writes, what, path)) {
        errno = EIO;
        done = -1;
    } else {
        int half = planned("short torn", writes, what, path);
        size_t part = half ? count / 2 : count;
        done = at ? real_at(fd, data, part, offset) : syscall(SYS_write, fd, data, part);
        if (done > 0)
            trace('W', path, place, data, done);
        if (half && strcmp(what, "torn") == 0) {
            errno = EIO;
            done = -1;
        }
    }
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t offset)
{
    return put(fd, data, count, offset, 1);
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t offset)
{
    return put(fd, data, count, offset, 1);
}

ssize_t write(int fd, const void *data, size_t count)
{
    return put(fd, data, count, 0, 0);
}

#define ALLOCATE(name, offset_type)                                                 \
    int name(int fd, offset_type offset, offset_type count)                         \
    {                                                                               \
        int (*real)(int, offset_type, offset_type) = dlsym(RTLD_NEXT, #name);       \
        char path[PATH_MAX], what[16];                                              \
        int error;                                                                  \
        path_of(fd, path);                                                          \
        if (!ours(path))                                                            \
            return real(fd, offset, count);                                         \
        if (fault("full") || tight())                                               \
            return ENOSPC;                                                          \
        pthread_mutex_lock(&lock);                                                  \
        if (planned("full", ++spaces, what, path) || planned("fullon", spaces, what, path)) \
            error = ENOSPC;                                                         \
        else if ((error = real(fd, offset, count)) == 0)                            \
            trace('A', path, offset, NULL, count);                                  \
        pthread_mutex_unlock(&lock);                                                \
        return error;                                                               \
    }
ALLOCATE(posix_fallocate, off_t)
ALLOCATE(posix_fallocate64, off64_t)

#define TRUNCATE(name, offset_type)                                                 \
    int name(int fd, offset_type size)                                              \
    {                                                                               \
        int (*real)(int, offset_type) = dlsym(RTLD_NEXT, #name);                    \
        char path[PATH_MAX];                                                        \
        path_of(fd, path);                                                          \
        pthread_mutex_lock(&lock);                                                  \
        int failed = real(fd, size);                                                \
        if (!failed && ours(path))                                                  \
            trace('T', path, size, NULL, 0);                                        \
        pthread_mutex_unlock(&lock);                                                \
        return failed;                                                              \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

int unlink(const char *path)
{
    int (*real)(const char *) = dlsym(RTLD_NEXT, "unlink");
    pthread_mutex_lock(&lock);
    int failed = real(path);
    if (!failed && ours(path))
        trace('U', path, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return failed;
}
