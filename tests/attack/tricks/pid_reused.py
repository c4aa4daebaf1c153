# A child connects as a user and is gone; another process with its pid, its program and its user,
# but with one more group, is there when the daemon looks.
import ctypes, os, signal, socket, sys, time
user, group = int(sys.argv[1]), int(sys.argv[2])
SYS_clone3, SIGCHLD = 435, 17
libc = ctypes.CDLL(None, use_errno=True)


def become(groups):
    os.setgroups(groups)
    os.setgid(user)
    os.setuid(user)


s = socket.socket()
opener = os.fork()
if opener == 0:
    become([])
    s.connect(("10.77.0.2", 7000))
    os._exit(0)
os.waitpid(opener, 0)
# /proc tells a start to the hundredth of a second.
time.sleep(0.05)
wanted = ctypes.c_int(opener)
words = [0, 0, 0, 0, SIGCHLD, 0, 0, 0, ctypes.addressof(wanted), 1, 0]
arguments = (ctypes.c_uint64 * len(words))(*words)
twin = libc.syscall(SYS_clone3, ctypes.byref(arguments), ctypes.sizeof(arguments))
if twin < 0:
    raise OSError(ctypes.get_errno(), "clone3")
if twin == 0:
    become([group])
    time.sleep(30)
    os._exit(0)
time.sleep(0.2)
print("ready", flush=True)
s.settimeout(3)
try:
    s.sendall(b"of-the-twin")
    s.shutdown(socket.SHUT_WR)
    print("back=" + s.recv(100).decode(), flush=True)
except OSError as error:
    print(error, flush=True)
os.kill(twin, signal.SIGKILL)
