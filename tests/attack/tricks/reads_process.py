# Opens another process's memory, or one of its descriptors.
import ctypes, os, sys
pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
SYS_pidfd_open, SYS_pidfd_getfd = 434, 438
try:
    with open("/proc/%d/mem" % pid, "rb"):
        print("worked")
except OSError as error:
    print(error)
pidfd = libc.syscall(SYS_pidfd_open, pid, 0)
if any(libc.syscall(SYS_pidfd_getfd, pidfd, fd, 0) >= 0 for fd in range(64)):
    print("worked")
