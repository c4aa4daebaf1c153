# In a network namespace of its own: a strict server, and a client in no scope with the addresses
# and ports of a connection that the daemon has open in its own namespace.
import ctypes, os, socket, subprocess, sys, time
marker, port, strict, outside = sys.argv[1].encode(), int(sys.argv[2]), sys.argv[3], sys.argv[4]
CLONE_NEWNET = 0x40000000
if ctypes.CDLL(None).unshare(CLONE_NEWNET) != 0:
    sys.exit("unshare")
subprocess.run("ip link set lo up; ip addr add 10.77.0.2/32 dev lo", shell=True, check=True)
ready, go = os.pipe()
server = os.fork()
if server == 0:
    with open(strict + "/cgroup.procs", "w") as procs:
        procs.write("0")
    listener = socket.create_server(("10.77.0.2", 7000))
    os.write(go, b"x")
    listener.settimeout(4)
    try:
        taken, _ = listener.accept()
        taken.settimeout(2)
        print("got=" + taken.recv(100).decode(), flush=True)
    except OSError as error:
        print("server:", error, flush=True)
    os._exit(0)
os.read(ready, 1)
s = socket.socket()
s.settimeout(2)
s.bind(("10.77.0.2", port))
try:
    s.connect(("10.77.0.2", 7000))
    s.sendall(marker)
except OSError as error:
    print("client:", error, flush=True)
os.wait()
print("tried", flush=True)
