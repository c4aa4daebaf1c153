# Tries to get at Tacit's maps and links. Numbers of bpf() commands: include/uapi/linux/bpf.h.
import ctypes, os, sys
how, pins = sys.argv[1], sys.argv[2]
SYS_bpf, OBJ_GET, MAP_NEXT, MAP_FD, LINK_FD, LINK_NEXT = 321, 7, 12, 14, 30, 31
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, *words):
    attr = (ctypes.c_uint32 * 32)(*words)
    answer = libc.syscall(SYS_bpf, command, ctypes.byref(attr), ctypes.sizeof(attr))
    return answer, attr


if how == "path":
    found = [os.path.join(at, name) for at, _, names in os.walk(pins) for name in names]
    for path in found:
        buffer = ctypes.create_string_buffer(path.encode())
        address = ctypes.addressof(buffer)
        if bpf(OBJ_GET, address & 0xFFFFFFFF, address >> 32)[0] >= 0:
            print("worked")
            break
elif how in ("maps", "links"):
    # Numbers are given in turn; only who may list them knows the newest, which is told here.
    command = MAP_FD if how == "maps" else LINK_FD
    newest = int(sys.argv[3])
    if any(bpf(command, number)[0] >= 0 for number in range(max(1, newest - 400), newest + 1)):
        print("worked")
elif how in ("newest-maps", "newest-links"):
    command = MAP_NEXT if how == "newest-maps" else LINK_NEXT
    newest = 0
    while True:
        answer, attr = bpf(command, newest)
        if answer < 0:
            break
        newest = attr[1]
    print("newest=%d" % newest)
