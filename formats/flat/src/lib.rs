//! makedumpfile's flattened stream: a file as records of offset, length and bytes, so that a dump whose parts are not
//! written in order can go down a pipe.

#![forbid(unsafe_code)]
