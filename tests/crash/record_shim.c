/* Records what a process does to the files below $CRASH_ROOT: preload it, and read the log at $CRASH_LOG.
 *
 * A record is a line, then the bytes that it announces and a newline:
 *   create INODE LENGTH   a new file; the path follows        write INODE OFFSET LENGTH   the bytes follow
 *   truncate INODE SIZE 0                                     fsync INODE 0               a file or a folder
 *   rename LENGTH LENGTH  both paths follow                   unlink LENGTH, rmdir LENGTH, link LENGTH LENGTH
 *   mkdir INODE LENGTH    the path follows
 * A lock keeps records in the order of the calls. What cannot be recorded ends the process: a log with a hole is wrong.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static char root[PATH_MAX];
static size_t root_length;

__attribute__((constructor)) static void start(void) {
    const char *name = getenv("CRASH_ROOT"), *log = getenv("CRASH_LOG");
    if (!name || !log || !realpath(name, root)) return;
    root_length = strlen(root);
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void put(const void *data, size_t length) {
    const char *at = data;
    while (length) {
        ssize_t n = syscall(SYS_write, log_fd, at, length);
        if (n <= 0) _exit(99);
        at += n;
        length -= (size_t)n;
    }
}

/* The path below the root, without following a link in its last part; NULL: elsewhere. */
static const char *below(int folder, const char *path, char *out) {
    char full[PATH_MAX], parent[PATH_MAX];
    if (log_fd < 0 || !path) return NULL;
    if (path[0] == '/' || folder == AT_FDCWD) {
        if (path[0] == '/') snprintf(full, sizeof full, "%s", path);
        else {
            char here[PATH_MAX];
            if (!getcwd(here, sizeof here)) return NULL;
            if (snprintf(full, sizeof full, "%s/%s", here, path) >= (int)sizeof full) return NULL;
        }
    } else {
        char link[64], dir[PATH_MAX];
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t n = readlink(link, dir, sizeof dir - 1);
        if (n < 0) return NULL;
        dir[n] = 0;
        if (snprintf(full, sizeof full, "%s/%s", dir, path) >= (int)sizeof full) return NULL;
    }
    size_t length = strlen(full);
    while (length > 1 && full[length - 1] == '/') full[--length] = 0;
    char *slash = strrchr(full, '/');
    if (!slash || slash == full) return NULL;
    *slash = 0;
    if (!realpath(full, parent)) return NULL;
    if (snprintf(out, PATH_MAX, "%s/%s", parent, slash + 1) >= PATH_MAX) return NULL;
    if (strncmp(out, root, root_length) || out[root_length] != '/') return NULL;
    return out + root_length + 1;
}

static int is_below(int fd) {
    char link[64], path[PATH_MAX];
    if (log_fd < 0 || fd == log_fd) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static unsigned long inode_of(int fd) {
    struct stat found;
    return fstat(fd, &found) ? 0 : (unsigned long)found.st_ino;
}

static void record(const void *data, size_t length, const char *format, ...) {
    char line[256];
    va_list rest;
    va_start(rest, format);
    int n = vsnprintf(line, sizeof line, format, rest);
    va_end(rest);
    put(line, (size_t)n);
    put(data, length);
    put("\n", 1);
}

static void record_two(const char *what, const char *one, const char *other) {
    char line[256];
    put(line, (size_t)snprintf(line, sizeof line, "%s %zu %zu\n", what, strlen(one), strlen(other)));
    put(one, strlen(one));
    put(other, strlen(other));
    put("\n", 1);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int opened(int folder, const char *path, int flags, mode_t mode) {
    char buffer[PATH_MAX];
    struct stat before;
    const char *name = below(folder, path, buffer);
    if (!name || !(flags & (O_CREAT | O_TRUNC)))
        return (int)syscall(SYS_openat, folder, path, flags, mode);
    pthread_mutex_lock(&lock);
    int was_there = !fstatat(folder, path, &before, 0);
    int fd = (int)syscall(SYS_openat, folder, path, flags, mode), kept = errno;
    if (fd >= 0 && !was_there) record(name, strlen(name), "create %lu %zu\n", inode_of(fd), strlen(name));
    else if (fd >= 0 && flags & O_TRUNC && before.st_size) record("", 0, "truncate %lu 0 0\n", inode_of(fd));
    pthread_mutex_unlock(&lock);
    errno = kept;
    return fd;
}

#define MODE() mode_t mode = 0; if (flags & O_CREAT) { va_list r; va_start(r, flags); mode = va_arg(r, mode_t); va_end(r); }
int open(const char *path, int flags, ...) { MODE() return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE() return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE() return opened(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE() return opened(folder, path, flags | O_LARGEFILE, mode); }
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

static ssize_t written(int fd, const void *data, size_t length, off_t at, int has_offset) {
    if (!is_below(fd)) return has_offset ? syscall(SYS_pwrite64, fd, data, length, at) : syscall(SYS_write, fd, data, length);
    pthread_mutex_lock(&lock);
    off_t from = has_offset ? at : (fcntl(fd, F_GETFL) & O_APPEND) ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
    ssize_t n = has_offset ? syscall(SYS_pwrite64, fd, data, length, at) : syscall(SYS_write, fd, data, length);
    int kept = errno;
    if (n > 0) record(data, (size_t)n, "write %lu %lld %zd\n", inode_of(fd), (long long)from, n);
    pthread_mutex_unlock(&lock);
    errno = kept;
    return n;
}
ssize_t write(int fd, const void *data, size_t length) { return written(fd, data, length, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t at) { return written(fd, data, length, at, 1); }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t at) { return written(fd, data, length, at, 1); }
ssize_t writev(int fd, const struct iovec *parts, int n) {
    if (!is_below(fd)) return syscall(SYS_writev, fd, parts, n);
    ssize_t all = 0;
    for (int i = 0; i < n; i++) {
        ssize_t one = written(fd, parts[i].iov_base, parts[i].iov_len, 0, 0);
        if (one < 0) return all ? all : one;
        all += one;
    }
    return all;
}
static ssize_t copied(int out, int in, off_t *from, size_t length) {
    char *buffer = malloc(length < 1 << 20 ? length : 1 << 20);
    size_t part = length < 1 << 20 ? length : 1 << 20;
    ssize_t n = from ? pread(in, buffer, part, *from) : read(in, buffer, part);
    if (n > 0) {
        n = written(out, buffer, (size_t)n, 0, 0);
        if (n > 0 && from) *from += n;
    }
    free(buffer);
    return n;
}
ssize_t sendfile(int out, int in, off_t *from, size_t length) {
    return is_below(out) ? copied(out, in, from, length) : syscall(SYS_sendfile, out, in, from, length);
}
ssize_t sendfile64(int out, int in, off64_t *from, size_t length) { return sendfile(out, in, (off_t *)from, length); }
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t length, unsigned flags) {
    if (is_below(out)) { errno = EXDEV; return -1; }
    return syscall(SYS_copy_file_range, in, from, out, to, length, flags);
}

static int cut(int fd, off_t size) {
    if (!is_below(fd)) return (int)syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&lock);
    int n = (int)syscall(SYS_ftruncate, fd, size), kept = errno;
    if (!n) record("", 0, "truncate %lu %lld 0\n", inode_of(fd), (long long)size);
    pthread_mutex_unlock(&lock);
    errno = kept;
    return n;
}
int ftruncate(int fd, off_t size) { return cut(fd, size); }
int ftruncate64(int fd, off64_t size) { return cut(fd, size); }
int truncate(const char *path, off_t size) {
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0) return -1;
    int n = cut(fd, size);
    close(fd);
    return n;
}
int truncate64(const char *path, off64_t size) { return truncate(path, size); }
int posix_fallocate(int fd, off_t at, off_t length) {
    if (!is_below(fd)) return REAL(posix_fallocate)(fd, at, length);
    struct stat found;
    if (!fstat(fd, &found) && found.st_size < at + length) return cut(fd, at + length) ? errno : 0;
    return 0;
}

static int synced(int fd, long call) {
    if (!is_below(fd)) return (int)syscall(call, fd);
    pthread_mutex_lock(&lock);  /* the disk of the test need not be flushed */
    record("", 0, "fsync %lu 0\n", inode_of(fd));
    pthread_mutex_unlock(&lock);
    return 0;
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

static int moved(int from_folder, const char *from, int to_folder, const char *to, unsigned flags, int is_link) {
    char one[PATH_MAX], other[PATH_MAX];
    const char *a = below(from_folder, from, one), *b = below(to_folder, to, other);
    pthread_mutex_lock(&lock);
    int n = is_link ? (int)syscall(SYS_linkat, from_folder, from, to_folder, to, flags)
                    : (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags), kept = errno;
    if (!n && a && b) record_two(is_link ? "link" : "rename", a, b);
    else if (!n && (a || b)) _exit(98); /* into the root or out of it: not a part of the model */
    pthread_mutex_unlock(&lock);
    errno = kept;
    return n;
}
int rename(const char *from, const char *to) { return moved(AT_FDCWD, from, AT_FDCWD, to, 0, 0); }
int renameat(int a, const char *from, int b, const char *to) { return moved(a, from, b, to, 0, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { return moved(a, from, b, to, flags, 0); }
int link(const char *from, const char *to) { return moved(AT_FDCWD, from, AT_FDCWD, to, 0, 1); }
int linkat(int a, const char *from, int b, const char *to, int flags) { return moved(a, from, b, to, (unsigned)flags, 1); }

static int removed(int folder, const char *path, int flags) {
    char buffer[PATH_MAX];
    const char *name = below(folder, path, buffer);
    pthread_mutex_lock(&lock);
    int n = (int)syscall(SYS_unlinkat, folder, path, flags), kept = errno;
    if (!n && name) record(name, strlen(name), "%s %zu\n", flags & AT_REMOVEDIR ? "rmdir" : "unlink", strlen(name));
    pthread_mutex_unlock(&lock);
    errno = kept;
    return n;
}
int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }
int unlinkat(int folder, const char *path, int flags) { return removed(folder, path, flags); }
int rmdir(const char *path) { return removed(AT_FDCWD, path, AT_REMOVEDIR); }

static int made(int folder, const char *path, mode_t mode) {
    char buffer[PATH_MAX];
    struct stat found;
    pthread_mutex_lock(&lock);
    int n = (int)syscall(SYS_mkdirat, folder, path, mode), kept = errno;
    const char *name = n ? NULL : below(folder, path, buffer);
    if (name && !fstatat(folder, path, &found, 0))
        record(name, strlen(name), "mkdir %lu %zu\n", (unsigned long)found.st_ino, strlen(name));
    pthread_mutex_unlock(&lock);
    errno = kept;
    return n;
}
int mkdir(const char *path, mode_t mode) { return made(AT_FDCWD, path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { return made(folder, path, mode); }
int symlink(const char *target, const char *path) {
    char buffer[PATH_MAX];
    if (below(AT_FDCWD, path, buffer)) _exit(97); /* no link is made on a device */
    return (int)syscall(SYS_symlinkat, target, AT_FDCWD, path);
}
