"""The two frames of the emulators' program, which has no debug information: `count`, and its caller."""

import gdb.unwinder


class FrameId:
    def __init__(self, sp, pc):
        self.sp, self.pc = sp, pc


class Frames(gdb.unwinder.Unwinder):
    """`count` is the last function, and a leaf: its caller is where register `link` points, and has the same stack pointer.
    Registers `kept` are those of the caller."""

    def __init__(self, count, link, kept):
        super().__init__("frames")
        self.count, self.link, self.kept = count, link, kept

    def __call__(self, frame):
        is_leaf = int(frame.read_register("pc")) >= self.count
        start = gdb.Value(self.count if is_leaf else 0)
        info = frame.create_unwind_info(FrameId(frame.read_register("sp"), start))
        for name in self.kept:
            info.add_saved_register(name, frame.read_register(name))
        link = frame.read_register(self.link)
        # Nobody has called the caller.
        info.add_saved_register("pc", link if is_leaf else link - link)
        return info
