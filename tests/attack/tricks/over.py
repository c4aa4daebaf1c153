# One exchange that ends by a reset, so that its port is free at once; says the port.
import socket, struct, sys
marker = sys.argv[1].encode()
s = socket.create_connection(("10.77.0.2", 7000), timeout=5)
s.sendall(marker)
if s.recv(100) != marker:
    sys.exit("no echo")
print("port=%d" % s.getsockname()[1])
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
s.close()
