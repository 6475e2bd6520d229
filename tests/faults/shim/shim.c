/* Stands between the program and the system's calls on the ledger's files (LD_PRELOAD).
 *
 * It writes a journal of everything that changes these files, in the order in which it took effect, so that a test can make
 * any disk from it that a power failure could have left behind. And it makes calls fail, or the clock be another, when the
 * test says so in a file that both have mapped.
 *
 * SHIM_WATCH    files whose path begins with this are watched, and the directory they are in
 * SHIM_JOURNAL  the journal; a record is: kind, file, offset, length (8 bytes each, little endian), then the bytes
 * SHIM_CONTROL  16 bytes: what to do (8 bytes), seconds to add to the clock of the day (8 bytes)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { CREATED = 'C', WRITTEN = 'W', TRUNCATED = 'T', SYNCED = 'S', SYNC_FAILED = 'F', UNLINKED = 'U', DIRECTORY_SYNCED = 'D' };
enum {
  NOTHING, FAIL_WRITE, FAIL_SYNC_ONCE, NO_SPACE, SHORT_WRITE, READ_ONLY,
  /* Of the database alone, which only checkpoints write. */
  NO_SPACE_BEHIND, FAIL_SYNC_BEHIND_ONCE,
  /* Killed when it syncs the log. */
  KILL_AT_SYNC
};
/* The files by what follows SHIM_WATCH: the database, its log, its rollback journal; others are not watched. */
enum { NONE, DATABASE, LOG, DIRECTORY };

#define MOST 65536
static unsigned char watched[MOST];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int journal = -1;
static volatile int64_t *control;
static const char *watch;

static int (*real_open)(const char *, int, ...);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_ftruncate)(int, off64_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_unlink)(const char *);
static int (*real_close)(int);
static int (*real_clock)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
  real_open = dlsym(RTLD_NEXT, "open64");
  real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
  real_write = dlsym(RTLD_NEXT, "write");
  real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
  real_fsync = dlsym(RTLD_NEXT, "fsync");
  real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
  real_unlink = dlsym(RTLD_NEXT, "unlink");
  real_close = dlsym(RTLD_NEXT, "close");
  real_clock = dlsym(RTLD_NEXT, "clock_gettime");
  watch = getenv("SHIM_WATCH");
  const char *path = getenv("SHIM_JOURNAL");
  if (path) journal = real_open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  path = getenv("SHIM_CONTROL");
  int fd = path ? real_open(path, O_RDWR | O_CLOEXEC) : -1;
  if (fd >= 0) {
    void *mapped = mmap(NULL, 16, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED) control = mapped;
    real_close(fd);
  }
}

static int kind_of(const char *path) {
  if (!watch) return NONE;
  size_t length = strlen(watch);
  if (strncmp(path, watch, length) == 0) {
    if (strcmp(path + length, "") == 0) return DATABASE;
    if (strcmp(path + length, "-wal") == 0) return LOG;
    return NONE;
  }
  const char *slash = strrchr(watch, '/');
  if (slash && strlen(path) == (size_t)(slash - watch) && strncmp(path, watch, slash - watch) == 0) return DIRECTORY;
  return NONE;
}

static void note(int kind, int file, int64_t offset, const void *bytes, size_t length) {
  if (journal < 0) return;
  int64_t head[4] = {kind, file, offset, (int64_t)length};
  char *record = malloc(sizeof head + (bytes ? length : 0));
  if (!record) abort();
  memcpy(record, head, sizeof head);
  size_t size = sizeof head;
  if (bytes) {
    memcpy(record + size, bytes, length);
    size += length;
  }
  if (real_write(journal, record, size) != (ssize_t)size) abort();
  free(record);
}

static int64_t asked(void) { return control ? control[0] : NOTHING; }

static int file_of(int fd) { return fd >= 0 && fd < MOST ? watched[fd] : NONE; }

static int opened(const char *path, int flags, mode_t mode) {
  int file = kind_of(path);
  if (file == NONE || file == DIRECTORY) {
    int fd = real_open(path, flags, mode);
    if (fd >= 0 && fd < MOST) watched[fd] = file;
    return fd;
  }
  if (asked() == READ_ONLY && (flags & O_ACCMODE) != O_RDONLY) {
    errno = EROFS;
    return -1;
  }
  pthread_mutex_lock(&lock);
  struct stat found;
  int fresh = stat(path, &found) != 0;
  int fd = real_open(path, flags, mode);
  if (fd >= 0 && fd < MOST) watched[fd] = file;
  if (fd >= 0 && fresh) note(CREATED, file, 0, NULL, 0);
  if (fd >= 0 && (flags & O_TRUNC)) note(TRUNCATED, file, 0, NULL, 0);
  pthread_mutex_unlock(&lock);
  return fd;
}

int open(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, int) : 0;
  va_end(rest);
  return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, int) : 0;
  va_end(rest);
  return opened(path, flags, mode);
}

int close(int fd) {
  if (fd >= 0 && fd < MOST) watched[fd] = NONE;
  return real_close(fd);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
  int file = file_of(fd);
  if (file == NONE) return real_pwrite(fd, bytes, length, offset);
  pthread_mutex_lock(&lock);
  int64_t what = asked();
  ssize_t done = -1;
  if (what == FAIL_WRITE) {
    errno = EIO;
  } else if (what == NO_SPACE || (what == NO_SPACE_BEHIND && file == DATABASE)) {
    errno = ENOSPC;
  } else if (what == READ_ONLY) {
    errno = EROFS;
  } else {
    size_t some = what == SHORT_WRITE && length > 1 ? length / 2 : length;
    done = real_pwrite(fd, bytes, some, offset);
    if (done > 0) note(WRITTEN, file, offset, bytes, done);
  }
  int error = errno;
  pthread_mutex_unlock(&lock);
  errno = error;
  return done;
}

int ftruncate64(int fd, off64_t length) {
  int file = file_of(fd);
  if (file == NONE) return real_ftruncate(fd, length);
  pthread_mutex_lock(&lock);
  int done = real_ftruncate(fd, length);
  int error = errno;
  if (done == 0) note(TRUNCATED, file, length, NULL, 0);
  pthread_mutex_unlock(&lock);
  errno = error;
  return done;
}

static int synced(int fd, int (*real)(int)) {
  int file = file_of(fd);
  if (file == NONE) return real(fd);
  pthread_mutex_lock(&lock);
  int done = -1, error = EIO;
  int64_t what = asked();
  if (file != DIRECTORY && (what == FAIL_SYNC_ONCE || (what == FAIL_SYNC_BEHIND_ONCE && file == DATABASE))) {
    /* As the kernel does: the error is told once, and what was not written is taken for clean from then on. */
    control[0] = NOTHING;
    note(SYNC_FAILED, file, 0, NULL, 0);
  } else if (file == LOG && what == KILL_AT_SYNC) {
    kill(getpid(), SIGKILL);
  } else {
    done = real(fd);
    error = errno;
    if (done == 0) note(file == DIRECTORY ? DIRECTORY_SYNCED : SYNCED, file, 0, NULL, 0);
  }
  pthread_mutex_unlock(&lock);
  errno = error;
  return done;
}

int fsync(int fd) { return synced(fd, real_fsync); }
int fdatasync(int fd) { return synced(fd, real_fdatasync); }

int unlink(const char *path) {
  int file = kind_of(path);
  if (file == NONE || file == DIRECTORY) return real_unlink(path);
  pthread_mutex_lock(&lock);
  int done = real_unlink(path);
  int error = errno;
  if (done == 0) note(UNLINKED, file, 0, NULL, 0);
  pthread_mutex_unlock(&lock);
  errno = error;
  return done;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  int done = real_clock(clock, time);
  if (done == 0 && clock == CLOCK_REALTIME && control) time->tv_sec += control[1];
  return done;
}
