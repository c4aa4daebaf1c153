# Connects across a user and network namespace of its own making.
import ctypes, os, socket, subprocess, sys, threading
marker, how = sys.argv[1].encode(), sys.argv[2]
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def unshare():
    user = os.getuid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    open("/proc/self/setgroups", "w").write("deny")
    open("/proc/self/uid_map", "w").write("0 %d 1" % user)


if how == "kept":
    s = socket.socket()
    unshare()
    s.settimeout(3)
    s.connect(("10.77.0.2", 7000))
    s.sendall(marker)
    s.recv(100)
elif how == "harvest":
    unshare()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    thief = socket.create_server(("127.0.0.1", 15001))

    def harvest():
        taken, _ = thief.accept()
        print("harvested=" + taken.recv(100).decode(), flush=True)

    thread = threading.Thread(target=harvest, daemon=True)
    thread.start()
    s = socket.create_connection(("127.0.0.2", 7000), timeout=3)
    s.sendall(marker)
    thread.join(3)
