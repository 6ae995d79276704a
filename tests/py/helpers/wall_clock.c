/* Sets the wall clock of one process: CLOCK_REALTIME, and the kernel's stamps of what was received, each
 * moved by the nanoseconds that stand in the file WALL_CLOCK_FILE, which whoever started the process may
 * change while it runs. Loaded by LD_PRELOAD. The clock that counts from the start of the machine stays what
 * it is, unless the fourth number moves it as well: so much time has passed. For that to be all the time that the
 * process knows of, its time stamp counter is called one that no kernel trusts.
 *
 * The third number holds the process up: one receive that found nothing returns so much later, as it does
 * where the process is stopped at that place. Once for each new number. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int (*real_gettime)(clockid_t, struct timespec*);
static ssize_t (*real_recvmsg)(int, struct msghdr*, int);
static int (*real_recvmmsg)(int, struct mmsghdr*, unsigned, int, struct timespec*);
static const volatile int64_t* moved; /* The clock, the stamps, how long to hold up, the other clock. */
static int64_t held_up;

__attribute__((constructor)) static void begin(void) {
  real_gettime = (int (*)(clockid_t, struct timespec*))dlsym(RTLD_NEXT, "clock_gettime");
  real_recvmsg = (ssize_t (*)(int, struct msghdr*, int))dlsym(RTLD_NEXT, "recvmsg");
  real_recvmmsg =
      (int (*)(int, struct mmsghdr*, unsigned, int, struct timespec*))dlsym(RTLD_NEXT, "recvmmsg");
  const int fd = open(getenv("WALL_CLOCK_FILE"), O_RDONLY | O_CLOEXEC);
  moved = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
  if (fd < 0 || moved == MAP_FAILED) abort();
  close(fd);
}

static void move(struct timespec* time, int64_t ns) {
  const int64_t all = (int64_t)time->tv_sec * 1000000000 + time->tv_nsec + ns;
  time->tv_sec = all / 1000000000;
  time->tv_nsec = all % 1000000000;
}

int clock_gettime(clockid_t clock, struct timespec* time) {
  if (real_gettime == NULL)
    real_gettime = (int (*)(clockid_t, struct timespec*))dlsym(RTLD_NEXT, "clock_gettime");
  const int result = real_gettime(clock, time);
  if (result == 0 && moved != NULL) {
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) move(time, moved[0]);
    if (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_RAW) move(time, moved[3]);
  }
  return result;
}

/* Deadlines on the clock that was moved are the kernel's own again. */
int pthread_cond_clockwait(pthread_cond_t* cond, pthread_mutex_t* mutex, clockid_t clock,
                           const struct timespec* until) {
  int (*real)(pthread_cond_t*, pthread_mutex_t*, clockid_t, const struct timespec*) =
      (int (*)(pthread_cond_t*, pthread_mutex_t*, clockid_t, const struct timespec*))dlsym(
          RTLD_NEXT, "pthread_cond_clockwait");
  struct timespec deadline = *until;
  if (clock == CLOCK_MONOTONIC && moved != NULL) move(&deadline, -moved[3]);
  return real(cond, mutex, clock, &deadline);
}

int sem_clockwait(sem_t* semaphore, clockid_t clock, const struct timespec* until) {
  int (*real)(sem_t*, clockid_t, const struct timespec*) =
      (int (*)(sem_t*, clockid_t, const struct timespec*))dlsym(RTLD_NEXT, "sem_clockwait");
  struct timespec deadline = *until;
  if (clock == CLOCK_MONOTONIC && moved != NULL) move(&deadline, -moved[3]);
  return real(semaphore, clock, &deadline);
}

FILE* fopen(const char* path, const char* mode) {
  static char other[] = "hpet\n";
  if (getenv("WALL_CLOCK_ALONE") != NULL && strstr(path, "available_clocksource") != NULL)
    return fmemopen(other, sizeof other - 1, "r");
  return ((FILE * (*)(const char*, const char*)) dlsym(RTLD_NEXT, "fopen"))(path, mode);
}

static void move_stamps(struct msghdr* message) {
  for (struct cmsghdr* head = CMSG_FIRSTHDR(message); head != NULL; head = CMSG_NXTHDR(message, head)) {
    if (head->cmsg_level != SOL_SOCKET) continue;
    if (head->cmsg_type != SCM_TIMESTAMPNS && head->cmsg_type != SCM_TIMESTAMPING) continue;
    /* Of SCM_TIMESTAMPING the first is the kernel's own. */
    struct timespec stamp;
    memcpy(&stamp, CMSG_DATA(head), sizeof stamp);
    if (stamp.tv_sec != 0) move(&stamp, moved[1]);
    memcpy(CMSG_DATA(head), &stamp, sizeof stamp);
  }
}

ssize_t recvmsg(int fd, struct msghdr* message, int flags) {
  const ssize_t result = real_recvmsg(fd, message, flags);
  if (result >= 0) move_stamps(message);
  if (result < 0 && errno == EAGAIN && moved[2] != held_up) {
    held_up = moved[2];
    const struct timespec pause = {held_up / 1000000000, held_up % 1000000000};
    nanosleep(&pause, NULL);
    errno = EAGAIN;
  }
  return result;
}

int recvmmsg(int fd, struct mmsghdr* messages, unsigned count, int flags, struct timespec* timeout) {
  const int result = real_recvmmsg(fd, messages, count, flags, timeout);
  for (int i = 0; i < result; ++i) move_stamps(&messages[i].msg_hdr);
  return result;
}
