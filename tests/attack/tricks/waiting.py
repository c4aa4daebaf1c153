# Opens something, waits for a file, and only then sends the marker on it.
import os, socket, sys, time
marker, how, go = sys.argv[1].encode(), sys.argv[2], sys.argv[3]
to = ("10.77.0.2", 7000)
if how == "udp":
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
else:
    s = socket.socket()
    if how == "deferred":
        s.setsockopt(socket.IPPROTO_TCP, 30, 1)
        s.setsockopt(socket.IPPROTO_TCP, 34, 1)
s.connect(to)
print("ready", flush=True)
until = time.monotonic() + 30
while not os.path.exists(go) and time.monotonic() < until:
    time.sleep(0.02)
s.settimeout(1)
s.send(marker)
time.sleep(0.5)
