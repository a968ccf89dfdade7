/* Library for LD_PRELOAD: what a process writes to files whose names contain FAULTS_MATCH, and when it asks for it to be
 * on the disk, is recorded in the file FAULTS_LOG, in order. faults_set(n, errno) makes every such call from the n-th on
 * fail, and every read (0: none). Record: kind (W, T, S, U), file, offset, length as 64-bit numbers, then the bytes of a W; the name for
 * an N, which comes before the first record of a file.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define FDS 4096
#define FILES 1024

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int file_of[FDS]; /* 0: not recorded */
static char *names[FILES];
static int log_fd = -1;
static long fail_from, calls;
static int fail_errno;

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

void faults_set(long from, int error) {
  pthread_mutex_lock(&lock);
  fail_from = from, fail_errno = error, calls = 0;
  pthread_mutex_unlock(&lock);
}

long faults_calls(void) { return calls; }

static void put(char kind, int64_t file, int64_t offset, int64_t length, const void *data) {
  char head[25];
  head[0] = kind;
  memcpy(head + 1, &file, 8), memcpy(head + 9, &offset, 8), memcpy(head + 17, &length, 8);
  if (syscall(SYS_write, log_fd, head, sizeof head) < 0) abort();
  if (data && length && syscall(SYS_write, log_fd, data, (size_t)length) < 0) abort();
}

static void opened(int fd, const char *path) {
  const char *match = getenv("FAULTS_MATCH"), *to = getenv("FAULTS_LOG");
  if (fd < 0 || fd >= FDS || !match || !to) return;
  pthread_mutex_lock(&lock);
  file_of[fd] = 0;
  if (strstr(path, match) && !strstr(path, "-shm") && !strstr(path, ".lock")) {
    int i = 0;
    while (i < FILES && names[i] && strcmp(names[i], path)) i++;
    if (i == FILES) abort();
    if (log_fd < 0) log_fd = (int)syscall(SYS_openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (!names[i]) names[i] = strdup(path), put('N', i + 1, 0, (int64_t)strlen(path), path);
    file_of[fd] = i + 1;
  }
  pthread_mutex_unlock(&lock);
}

/* Whether the call fails; called with the lock held. */
static int fails(void) {
  calls++;
  if (!fail_from || calls < fail_from) return 0;
  errno = fail_errno;
  return 1;
}

#define OPEN(name)                                                                \
  int name(const char *path, int flags, ...) {                                    \
    va_list more;                                                                 \
    va_start(more, flags);                                                        \
    int fd = REAL(name)(path, flags, va_arg(more, mode_t));                       \
    va_end(more);                                                                 \
    opened(fd, path);                                                             \
    return fd;                                                                    \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                              \
  int name(int folder, const char *path, int flags, ...) {                        \
    va_list more;                                                                 \
    va_start(more, flags);                                                        \
    int fd = REAL(name)(folder, path, flags, va_arg(more, mode_t));               \
    va_end(more);                                                                 \
    opened(fd, path);                                                             \
    return fd;                                                                    \
  }
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
  pthread_mutex_lock(&lock);
  if (fd >= 0 && fd < FDS) file_of[fd] = 0;
  pthread_mutex_unlock(&lock);
  return REAL(close)(fd);
}

static int recorded(int fd) { return fd >= 0 && fd < FDS && file_of[fd]; }

#define RECORDED(fd, call, kind, offset, length, data)                            \
  if (!recorded(fd)) return call;                                                 \
  pthread_mutex_lock(&lock);                                                      \
  long result = fails() ? -1 : (long)(call);                                      \
  int error = errno;                                                              \
  if (result >= 0) put(kind, file_of[fd], offset, length, data);                  \
  pthread_mutex_unlock(&lock);                                                    \
  errno = error;                                                                  \
  return result;

ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { RECORDED(fd, REAL(pwrite)(fd, data, n, at), 'W', at, result, data) }
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) { RECORDED(fd, REAL(pwrite64)(fd, data, n, at), 'W', at, result, data) }
ssize_t write(int fd, const void *data, size_t n) { RECORDED(fd, REAL(write)(fd, data, n), 'W', lseek(fd, 0, SEEK_CUR) - result, result, data) }
int ftruncate(int fd, off_t n) { RECORDED(fd, REAL(ftruncate)(fd, n), 'T', n, 0, NULL) }
int ftruncate64(int fd, off64_t n) { RECORDED(fd, REAL(ftruncate64)(fd, n), 'T', n, 0, NULL) }
int fsync(int fd) { RECORDED(fd, REAL(fsync)(fd), 'S', 0, 0, NULL) }
int fdatasync(int fd) { RECORDED(fd, REAL(fdatasync)(fd), 'S', 0, 0, NULL) }

#define FAILING(fd, call)                                                         \
  if (!recorded(fd)) return call;                                                 \
  pthread_mutex_lock(&lock);                                                      \
  int failed = fails(), error = errno;                                            \
  pthread_mutex_unlock(&lock);                                                    \
  errno = error;                                                                  \
  return failed ? -1 : (call);

ssize_t pread(int fd, void *data, size_t n, off_t at) { FAILING(fd, REAL(pread)(fd, data, n, at)) }
ssize_t pread64(int fd, void *data, size_t n, off64_t at) { FAILING(fd, REAL(pread64)(fd, data, n, at)) }

/* The folder is synced by who removes a file from it, so this is recorded as lasting at once. */
int unlink(const char *path) {
  int result = REAL(unlink)(path);
  pthread_mutex_lock(&lock);
  for (int i = 0; result == 0 && i < FILES && names[i]; i++)
    if (!strcmp(names[i], path)) put('U', i + 1, 0, 0, NULL);
  pthread_mutex_unlock(&lock);
  return result;
}
