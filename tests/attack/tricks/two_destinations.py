# Connects to one destination and writes, dissolves the connection, connects to another from the
# same port, and writes.
import ctypes, socket, sys, time
one, other = sys.argv[1].encode(), sys.argv[2].encode()
AF_UNSPEC = 0
libc = ctypes.CDLL(None, use_errno=True)
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", 20001))
s.settimeout(5)
s.connect(("10.77.0.2", 7000))
s.send(one)
nowhere = (ctypes.c_char * 16)()
if libc.connect(s.fileno(), nowhere, 16) != 0:
    raise OSError(ctypes.get_errno(), "AF_UNSPEC")
s.connect(("10.77.0.2", 7001))
s.send(other)
print("ready", flush=True)
try:
    s.recv(100)
except OSError as error:
    print(error, flush=True)
