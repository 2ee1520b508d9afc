/* Loaded before libc: writes down, in order, what the processes do to files below RECORD_ROOT, and what they acknowledge.

   Every change and its entry are made under one lock that all processes share, so that the order of entries is the order
   of changes. A sync has two entries: what was written before the first one is durable from the second on. An
   acknowledgement is written down before its bytes leave. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PATH_BYTES 4096
#define ACK "X-Push-Id: "
#define ID_BYTES 36

enum { CREATE = 1, WRITE, SIZE, SYNC_BEGIN, SYNC_END, MKDIR, RENAME, UNLINK, LINK, ACKED };

struct entry {
    uint32_t kind, path_bytes;
    uint64_t file, number, data_bytes;
};

struct shared {
    pthread_mutex_t lock;
    uint64_t ready, syncs;
};

static struct shared *shared;
static const char *root;
static size_t root_bytes;
static int record = -1;

__attribute__((constructor)) static void begin(void) {
    char lock_path[PATH_BYTES];
    const char *path = getenv("RECORD_FILE");
    root = getenv("RECORD_ROOT");
    if (!path || !root) return;
    root_bytes = strlen(root);
    int file = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    snprintf(lock_path, sizeof lock_path, "%s.lock", path);
    int lock_file = syscall(SYS_openat, AT_FDCWD, lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || lock_file < 0) abort();
    record = fcntl(file, F_DUPFD_CLOEXEC, 200); /* out of the way of who counts descriptors from below */
    syscall(SYS_close, file);
    flock(lock_file, LOCK_EX);
    syscall(SYS_ftruncate, lock_file, sizeof *shared);
    shared = mmap(0, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, lock_file, 0);
    if (record < 0 || shared == MAP_FAILED) abort();
    if (!shared->ready) {
        pthread_mutexattr_t kind;
        pthread_mutexattr_init(&kind);
        pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init(&shared->lock, &kind);
        shared->ready = 1;
    }
    flock(lock_file, LOCK_UN); /* closing would not: the mapping keeps the file open */
    syscall(SYS_close, lock_file);
}

static void lock(void) {
    if (pthread_mutex_lock(&shared->lock) == EOWNERDEAD) pthread_mutex_consistent(&shared->lock);
}

static void unlock(void) {
    int kept = errno;
    pthread_mutex_unlock(&shared->lock);
    errno = kept;
}

/* Append one entry; `pieces` hold its data, of which `data_bytes` count. One write, which O_APPEND makes whole. */
static void note(uint32_t kind, uint64_t file, uint64_t number, const char *path, const struct iovec *pieces, int count,
                 size_t data_bytes) {
    int kept = errno;
    struct entry entry = {kind, path ? strlen(path) : 0, file, number, data_bytes};
    struct iovec parts[count + 2];
    size_t left = data_bytes;
    int used = 2;
    parts[0] = (struct iovec){&entry, sizeof entry};
    parts[1] = (struct iovec){(void *)path, entry.path_bytes};
    for (int i = 0; i < count && left; i++) {
        size_t taken = pieces[i].iov_len < left ? pieces[i].iov_len : left;
        parts[used++] = (struct iovec){pieces[i].iov_base, taken};
        left -= taken;
    }
    if (syscall(SYS_writev, record, parts, used) != (long)(sizeof entry + entry.path_bytes + data_bytes)) abort();
    errno = kept;
}

static void note_text(uint32_t kind, uint64_t file, const char *path, const char *text) {
    struct iovec piece = {(void *)text, text ? strlen(text) : 0};
    note(kind, file, 0, path, &piece, 1, piece.iov_len);
}

static int below(const char *path) {
    return shared && !strncmp(path, root, root_bytes) && (path[root_bytes] == '/' || !path[root_bytes]);
}

static int descriptor_path(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_BYTES - 1);
    path[length > 0 ? length : 0] = 0;
    return length > 0;
}

static int is_recorded(int fd) {
    char path[PATH_BYTES];
    int kept = errno, recorded = shared && fd != record && descriptor_path(fd, path) && below(path);
    errno = kept;
    return recorded;
}

static int absolute(int directory, const char *name, char *path) {
    size_t length = 0;
    path[0] = 0;
    if (!name || !shared) return 0;
    if (name[0] != '/') {
        if (directory == AT_FDCWD ? !getcwd(path, PATH_BYTES) : !descriptor_path(directory, path)) return 0;
        length = strlen(path);
        path[length++] = '/';
    }
    snprintf(path + length, PATH_BYTES - length, "%s", name);
    return below(path);
}

static uint64_t inode(int fd) {
    struct stat status;
    return fstat(fd, &status) ? 0 : status.st_ino;
}

static uint64_t size_of(int fd) {
    struct stat status;
    return fstat(fd, &status) ? 0 : status.st_size;
}

/* --- What is acknowledged ------------------------------------------------------------------------------------------ */

static void note_acks(const void *data, size_t bytes) {
    const char *at = data, *end = at + bytes, *found;
    while (shared && at < end && (found = memmem(at, end - at, ACK, sizeof ACK - 1))) {
        at = found + sizeof ACK - 1;
        if (end - at < ID_BYTES) return;
        struct iovec piece = {(void *)at, ID_BYTES};
        note(ACKED, 0, 0, 0, &piece, 1, ID_BYTES);
    }
}

ssize_t send(int fd, const void *data, size_t bytes, int flags) {
    note_acks(data, bytes);
    return syscall(SYS_sendto, fd, data, bytes, flags, 0, 0);
}

ssize_t sendto(int fd, const void *data, size_t bytes, int flags, const struct sockaddr *to, socklen_t length) {
    note_acks(data, bytes);
    return syscall(SYS_sendto, fd, data, bytes, flags, to, length);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    for (size_t i = 0; i < message->msg_iovlen; i++)
        note_acks(message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
    return syscall(SYS_sendmsg, fd, message, flags);
}

/* --- What is written ----------------------------------------------------------------------------------------------- */

static ssize_t put(int fd, const struct iovec *pieces, int count, off_t offset, int here) {
    if (!is_recorded(fd)) {
        for (int i = 0; i < count; i++) note_acks(pieces[i].iov_base, pieces[i].iov_len);
        return here ? syscall(SYS_writev, fd, pieces, count) : syscall(SYS_pwritev, fd, pieces, count, offset, 0L);
    }
    lock();
    ssize_t done = here ? syscall(SYS_writev, fd, pieces, count) : syscall(SYS_pwritev, fd, pieces, count, offset, 0L);
    if (done > 0) note(WRITE, inode(fd), here ? lseek(fd, 0, SEEK_CUR) - done : offset, 0, pieces, count, done);
    unlock();
    return done;
}

ssize_t write(int fd, const void *data, size_t bytes) {
    struct iovec piece = {(void *)data, bytes};
    return put(fd, &piece, 1, 0, 1);
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off_t offset) {
    struct iovec piece = {(void *)data, bytes};
    return put(fd, &piece, 1, offset, 0);
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset) { return pwrite64(fd, data, bytes, offset); }
ssize_t writev(int fd, const struct iovec *pieces, int count) { return put(fd, pieces, count, 0, 1); }
ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off_t offset) { return put(fd, pieces, count, offset, 0); }
ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset) { return put(fd, pieces, count, offset, 0); }

int ftruncate64(int fd, off_t size) {
    if (!is_recorded(fd)) return syscall(SYS_ftruncate, fd, size);
    lock();
    int failed = syscall(SYS_ftruncate, fd, size);
    if (!failed) note(SIZE, inode(fd), size, 0, 0, 0, 0);
    unlock();
    return failed;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int fallocate64(int fd, int mode, off_t offset, off_t bytes) {
    if (!is_recorded(fd)) return syscall(SYS_fallocate, fd, mode, offset, bytes);
    lock();
    int failed = syscall(SYS_fallocate, fd, mode, offset, bytes);
    if (!failed) note(SIZE, inode(fd), size_of(fd), 0, 0, 0, 0);
    unlock();
    return failed;
}

int fallocate(int fd, int mode, off_t offset, off_t bytes) { return fallocate64(fd, mode, offset, bytes); }
int posix_fallocate64(int fd, off_t offset, off_t bytes) { return fallocate64(fd, 0, offset, bytes) ? errno : 0; }
int posix_fallocate(int fd, off_t offset, off_t bytes) { return posix_fallocate64(fd, offset, bytes); }

/* --- What is made durable ------------------------------------------------------------------------------------------ */

static int synced(int fd, long how) {
    if (!is_recorded(fd)) return syscall(how, fd);
    lock();
    uint64_t turn = ++shared->syncs;
    note(SYNC_BEGIN, inode(fd), turn, 0, 0, 0, 0);
    unlock();
    int failed = syscall(how, fd);
    lock();
    if (!failed) note(SYNC_END, inode(fd), turn, 0, 0, 0, 0);
    unlock();
    return failed;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

/* --- Names --------------------------------------------------------------------------------------------------------- */

static int opened(int directory, const char *name, int flags, mode_t mode) {
    char path[PATH_BYTES];
    struct stat before;
    if (!(flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE || !absolute(directory, name, path))
        return syscall(SYS_openat, directory, name, flags, mode);
    lock();
    int kept = errno, is_new = fstatat(directory, name, &before, 0) != 0;
    errno = kept;
    int fd = syscall(SYS_openat, directory, name, flags, mode);
    if (fd >= 0 && is_new) note(CREATE, inode(fd), 0, path, 0, 0, 0);
    if (fd >= 0 && !is_new && (flags & O_TRUNC) && before.st_size) note(SIZE, inode(fd), 0, 0, 0, 0, 0);
    unlock();
    return fd;
}

#define MODE(after)                                                          \
    mode_t mode = 0;                                                         \
    if (flags & (O_CREAT | O_TMPFILE)) {                                     \
        va_list more;                                                        \
        va_start(more, after);                                               \
        mode = va_arg(more, mode_t);                                         \
        va_end(more);                                                        \
    }

int open64(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags, mode); }
int open(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags, mode); }
int openat64(int directory, const char *name, int flags, ...) { MODE(flags) return opened(directory, name, flags, mode); }
int openat(int directory, const char *name, int flags, ...) { MODE(flags) return opened(directory, name, flags, mode); }
int creat64(const char *name, mode_t mode) { return opened(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat(const char *name, mode_t mode) { return creat64(name, mode); }

int truncate64(const char *name, off_t size) {
    int fd = opened(AT_FDCWD, name, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0) return -1;
    int failed = ftruncate64(fd, size), kept = errno;
    syscall(SYS_close, fd);
    errno = kept;
    return failed;
}

int truncate(const char *name, off_t size) { return truncate64(name, size); }

int mkdirat(int directory, const char *name, mode_t mode) {
    char path[PATH_BYTES];
    struct stat made;
    if (!absolute(directory, name, path)) return syscall(SYS_mkdirat, directory, name, mode);
    lock();
    int failed = syscall(SYS_mkdirat, directory, name, mode);
    if (!failed && !fstatat(directory, name, &made, 0)) note_text(MKDIR, made.st_ino, path, 0);
    unlock();
    return failed;
}

int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int renameat2(int from_in, const char *from, int to_in, const char *to, unsigned flags) {
    char old[PATH_BYTES], new[PATH_BYTES];
    int leaves = absolute(from_in, from, old), comes = absolute(to_in, to, new);
    if (!leaves && !comes) return syscall(SYS_renameat2, from_in, from, to_in, to, flags);
    lock();
    int failed = syscall(SYS_renameat2, from_in, from, to_in, to, flags);
    if (!failed) note_text(RENAME, 0, old, new);
    unlock();
    return failed;
}

int renameat(int from_in, const char *from, int to_in, const char *to) { return renameat2(from_in, from, to_in, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int linkat(int from_in, const char *from, int to_in, const char *to, int flags) {
    char old[PATH_BYTES], new[PATH_BYTES];
    absolute(from_in, from, old);
    if (!absolute(to_in, to, new)) return syscall(SYS_linkat, from_in, from, to_in, to, flags);
    lock();
    int failed = syscall(SYS_linkat, from_in, from, to_in, to, flags);
    if (!failed) note_text(LINK, 0, old, new);
    unlock();
    return failed;
}

int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int directory, const char *name, int flags) {
    char path[PATH_BYTES];
    if (!absolute(directory, name, path)) return syscall(SYS_unlinkat, directory, name, flags);
    lock();
    int failed = syscall(SYS_unlinkat, directory, name, flags);
    if (!failed) note_text(UNLINK, 0, path, 0);
    unlock();
    return failed;
}

int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }
