// A load that is apart from what it loads, on a machine with as many processors as the server has workers: it stops the
// server, puts a burst of queries into its sockets, lets it go on and sleeps until they are answered; then again.
//   burst PORT PID ROUNDS SOCKETS EACH NAMES TAG
// Each of SOCKETS clients sends EACH queries a round, for names that begin with TAG: NAMES different ones over and over,
// or with 0 each name once. Prints: answers, answers that are not NOERROR, queries without an answer.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/udp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#define MOST 32
#define DIGITS 10
#define PAUSE_MS 20
#define PAUSES 20    // then what is missing is lost
static uint8_t message[512];
static size_t length, digits_at;
static uint64_t names, next_name;

static void pause_ms(int ms) { struct timespec t = {ms / 1000, ms % 1000 * 1000000L}; nanosleep(&t, NULL); }
static void prepare(const char *tag) {
    static const uint8_t head[12] = {0, 0, 1, 0, 0, 1};
    static const char tail[] = "\4perf\7example\3org\0\0\1\0\1";
    size_t n = strlen(tag);
    memcpy(message, head, 12);
    message[12] = n + DIGITS;
    memcpy(message + 13, tag, n);
    digits_at = 13 + n;
    memcpy(message + digits_at + DIGITS, tail, sizeof tail - 1);
    length = digits_at + DIGITS + sizeof tail - 1;
}
// Sends n queries as one message, which the kernel cuts.
static void ask(int fd, int n) {
    static uint8_t out[MOST * sizeof message];
    for (int i = 0; i < n; i++, next_name++) {
        uint64_t v = names ? next_name % names : next_name;
        uint8_t *q = out + i * length;
        memcpy(q, message, length);
        q[0] = next_name >> 8; q[1] = next_name;
        for (int d = DIGITS; d-- > 0; v /= 10) q[digits_at + d] = '0' + v % 10;
    }
    struct iovec iov = {out, n * length};
    union { char octets[CMSG_SPACE(2)]; struct cmsghdr align; } control = {0};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = IPPROTO_UDP; c->cmsg_type = UDP_SEGMENT; c->cmsg_len = CMSG_LEN(2);
    uint16_t one = length; memcpy(CMSG_DATA(c), &one, 2);
    if (sendmsg(fd, &m, 0) < 0) { perror("sendmsg"); exit(1); }
}
// Takes what came; counts what is not NOERROR.
static int take(int fd, uint64_t *bad) {
    static uint8_t in[MOST][2048];
    struct iovec iov[MOST]; struct mmsghdr m[MOST];
    for (int i = 0; i < MOST; i++) { iov[i] = (struct iovec){in[i], sizeof in[i]}; m[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &iov[i], .msg_iovlen = 1}}; }
    int n = recvmmsg(fd, m, MOST, MSG_DONTWAIT, NULL);
    for (int i = 0; i < n; i++) *bad += (in[i][3] & 15) != 0;
    return n > 0 ? n : 0;
}
int main(int ac, char **av) {
    if (ac < 8) { fprintf(stderr, "burst PORT PID ROUNDS SOCKETS EACH NAMES TAG\n"); return 2; }
    int pid = atoi(av[2]), rounds = atoi(av[3]), sockets = atoi(av[4]), each = atoi(av[5]);
    names = atoll(av[6]);
    if (pid < 2 || sockets < 1 || each < 1 || each > MOST || strlen(av[7]) > 40) { fprintf(stderr, "burst: EACH is 1 to %d, TAG at most 40 letters\n", MOST); return 2; }
    prepare(av[7]);
    struct rlimit files; getrlimit(RLIMIT_NOFILE, &files); files.rlim_cur = files.rlim_max; setrlimit(RLIMIT_NOFILE, &files);
    int *fd = calloc(sockets, sizeof *fd);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(av[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 0; i < sockets; i++) {
        fd[i] = socket(AF_INET, SOCK_DGRAM, 0);
        if (fd[i] < 0 || connect(fd[i], (void *)&a, sizeof a)) { perror("socket"); return 1; }
    }
    uint64_t answers = 0, bad = 0, lost = 0;
    for (int r = 0; r < rounds; r++) {
        if (kill(pid, SIGSTOP)) { perror("kill"); return 1; }
        pause_ms(1);
        for (int i = 0; i < sockets; i++) ask(fd[i], each);
        kill(pid, SIGCONT);
        int64_t left = (int64_t)sockets * each;
        for (int p = 0; left > 0 && p < PAUSES; p++) {
            pause_ms(PAUSE_MS);
            for (int i = 0; i < sockets; i++) for (int n; (n = take(fd[i], &bad)); ) { answers += n; left -= n; if (n < MOST) break; }
        }
        if (left > 0) lost += left;
    }
    printf("%lu %lu %lu\n", answers, bad, lost);
}
