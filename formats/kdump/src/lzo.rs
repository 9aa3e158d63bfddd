//! LZO1X blocks.
