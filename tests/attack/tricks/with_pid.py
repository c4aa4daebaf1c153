# Connects as a process with a chosen pid (clone3 with set_tid, Linux 5.5).
import ctypes, os, socket, struct, sys, time
marker, pid = sys.argv[1].encode(), int(sys.argv[2])
SYS_clone3, SIGCHLD = 435, 17
libc = ctypes.CDLL(None, use_errno=True)


def with_pid(pid):
    wanted = ctypes.c_int(pid)
    words = [0, 0, 0, 0, SIGCHLD, 0, 0, 0, ctypes.addressof(wanted), 1, 0]
    arguments = (ctypes.c_uint64 * len(words))(*words)
    made = libc.syscall(SYS_clone3, ctypes.byref(arguments), ctypes.sizeof(arguments))
    if made < 0:
        raise OSError(ctypes.get_errno(), "clone3")
    return made


if with_pid(pid) == 0:
    try:
        s = socket.create_connection(("10.77.0.2", 7000), timeout=3)
        s.sendall(marker)
        s.recv(100)
    finally:
        os._exit(0)
os.wait()
