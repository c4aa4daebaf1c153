# Connects on a socket, or in a cgroup, that changed its place. Told: the marker, how, where the
# strict scope and no scope are, and the user who connects.
import ctypes, os, socket, struct, sys, time
marker, how, strict, outside, user = sys.argv[1].encode(), sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])


def move(to):
    with open(to + "/cgroup.procs", "w") as procs:
        procs.write("0")


def become():
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def talk(fd):
    # Nothing but connect() and write(): other calls would show the programs whose it is.
    to = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", 7000, socket.inet_aton("10.77.0.2"))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.connect(fd, to, len(to)) != 0:
        raise OSError(ctypes.get_errno(), "connect")
    os.write(fd, marker)
    time.sleep(0.5)


def passed(to):
    giver, taker = socket.socketpair()
    s = socket.socket()
    if os.fork() == 0:
        move(to)
        become()
        _, fds, _, _ = socket.recv_fds(taker, 1, 1)
        talk(fds[0])
        os._exit(0)
    socket.send_fds(giver, [b"x"], [s.fileno()])
    os.wait()


def moved(to):
    s = socket.socket()
    move(to)
    become()
    talk(s.fileno())


def born(there):
    move(there)
    become()
    s = socket.socket()
    talk(s.fileno())


def below(name):
    folder = strict + name
    os.makedirs(folder, exist_ok=True)
    child = os.fork()
    if child == 0:
        born(folder)
        os._exit(0)
    os.wait()
    while folder != strict:
        os.rmdir(folder)
        folder = os.path.dirname(folder)


if how == "passed-in":
    passed(strict)
elif how == "passed-out":
    passed(outside)
elif how == "moved-in":
    moved(strict)
elif how == "moved-out":
    moved(outside)
elif how == "datagram":
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    move(strict)
    become()
    s.sendto(marker, ("10.77.0.2", 9999))
elif how == "below":
    below("/below")
elif how == "forged":
    mount, name = strict.split("/tacit-test-", 1)
    below("/tacit-test-" + name.rsplit("/", 1)[0] + "/outside")
