"""The two frames of the emulators' program, which has no debug information: `count`, and its caller."""

import gdb.unwinder


class FrameId:
    def __init__(self, sp, pc):
        self.sp, self.pc = sp, pc


class Frames(gdb.unwinder.Unwinder):
    """`count` is the last function, and a leaf that keeps the stack pointer: its caller is where register `link` points, or without one the
    word on the stack. Registers `kept` are those of the caller."""

    def __init__(self, count, link, kept):
        super().__init__("frames")
        self.count, self.link, self.kept = count, link, kept

    def __call__(self, frame):
        pc = frame.read_register("pc")
        is_leaf = int(pc) >= self.count
        start = gdb.Value(self.count if is_leaf else 0)
        info = frame.create_unwind_info(FrameId(frame.read_register("sp"), start))
        for name in self.kept:
            info.add_saved_register(name, frame.read_register(name))
        if self.link:
            link = frame.read_register(self.link)
        else:
            sp = frame.read_register("sp")
            link = sp.cast(pc.type.pointer()).dereference()
            if is_leaf:
                info.add_saved_register("sp", sp + pc.type.sizeof)
        # Nobody has called the caller.
        info.add_saved_register("pc", link if is_leaf else pc - pc)
        return info
