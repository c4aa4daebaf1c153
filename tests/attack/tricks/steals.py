# Takes a connection out of another process (pidfd_getfd, Linux 5.6) and talks on it.
import ctypes, socket, sys
pid, number = int(sys.argv[1]), int(sys.argv[2])
SYS_pidfd_open, SYS_pidfd_getfd = 434, 438
libc = ctypes.CDLL(None, use_errno=True)
pidfd = libc.syscall(SYS_pidfd_open, pid, 0)
fd = libc.syscall(SYS_pidfd_getfd, pidfd, number, 0)
if fd < 0:
    sys.exit("no descriptor: errno %d" % ctypes.get_errno())
s = socket.socket(fileno=fd)
s.settimeout(3)
s.sendall(b"of-the-thief")
if s.recv(100) == b"of-the-thief":
    print("worked")
