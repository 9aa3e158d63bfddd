//! LZO1X blocks.

const HASH_BITS: u32 = 11;
const MAX_DISTANCE: usize = 49151;
const MIN_MATCH: usize = 4;

#[derive(Debug)]
pub struct Encoder {
    table: Box<[(u32,u32); 1 << HASH_BITS]>,
}

fn slot(bytes: u32) -> usize {
    (bytes.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize
}

#[inline(always)]
fn load(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

impl Encoder {
    pub fn new() -> Self {
        Self { table: Box::new([(0,0); 1 << HASH_BITS]) }
    }
    pub fn encode(&mut self, input: &[u8], out: &mut [u8]) -> Option<usize> {
        self.table.fill((load(input, 0).unwrap_or(0),0));
        let mut w = Writer { out, at: 0 };
        let mut done = 0;
        let mut pos = 1;
        while let Some(bytes) = load(input, pos) {
            let (seen, entry) = std::mem::replace(&mut self.table[slot(bytes)], (bytes, pos as u32));
            let distance = pos - entry as usize;
            if seen != bytes || distance > MAX_DISTANCE {
                pos += 1 + ((pos - done) >> 5);
                continue;
            }
            let mut len = MIN_MATCH + common(&input[pos + MIN_MATCH..], &input[pos - distance + MIN_MATCH..]);
            while pos > done && pos > distance && input[pos - 1] == input[pos - 1 - distance] { pos -= 1; len += 1; }
w.literals(input, done, pos)?;
            w.copy(distance, len)?;
            pos += len;
            done = pos;
        }
        w.literals(input, done, input.len())?;
        w.bytes([0x11, 0, 0])?;
        Some(w.at)
    }
}

#[inline(always)]
fn common(a: &[u8], b: &[u8]) -> usize {
    let mut n = 0;
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        let differ = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differ != 0 {
            return n + (differ.trailing_zeros() / 8) as usize;
        }
        n += 8;
    }
    n + a[n..].iter().zip(&b[n..]).take_while(|(a, b)| a == b).count()
}

struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    #[inline(always)]
    fn bytes<const N: usize>(&mut self, bytes: [u8; N]) -> Option<()> {
        *self.out.get_mut(self.at..)?.first_chunk_mut()? = bytes;
        self.at += N;
        Some(())
    }
    #[inline(never)]
    fn rest(&mut self, mut n: usize) -> Option<()> {
        while n > 255 {
            self.bytes([0])?;
            n -= 255;
        }
        self.bytes([n as u8])
    }
    #[inline(always)]
    fn literals(&mut self, input: &[u8], start: usize, end: usize) -> Option<()> {
        let n = end - start;
        if n <= 16 && self.at >= 2 && let Some(from) = input[start..].first_chunk::<16>() {
            let room: &mut [u8; 19] = self.out.get_mut(self.at - 2..)?.first_chunk_mut()?;
            let long = (n > 3) as usize;
            room[0] |= if n <= 3 { n as u8 } else { 0 };
            room[2] = (n as u8).wrapping_sub(3);
            let to: &mut [u8; 16] = room[2 + long..].first_chunk_mut()?;
            *to = *from;
            self.at += n + long;
            return Some(());
        }
        self.many(&input[start..end])
    }
    #[inline(never)]
    fn many(&mut self, run: &[u8]) -> Option<()> {
        let n = run.len();
        if self.at == 0 && n <= 238 {
            self.bytes([n as u8 + 17])?;
        } else if n == 0 {
            return Some(());
        } else if n <= 3 {
            self.out[self.at - 2] |= n as u8;
        } else if n <= 18 {
            self.bytes([n as u8 - 3])?;
        } else {
            self.bytes([0])?;
            self.rest(n - 18)?;
        }
        self.out.get_mut(self.at..self.at + n)?.copy_from_slice(run);
        self.at += n;
        Some(())
    }
    #[inline(always)]
    fn copy(&mut self, distance: usize, len: usize) -> Option<()> {
        let near = distance <= 2048 && len <= 8;
        let far = distance > 16384;
        let d = distance as u32 - 1;
        let short = if far { 9 } else { 33 };
        if len <= short {
            let two = ((len as u32 - 1) << 5) | ((d & 7) << 2) | ((d >> 3) << 8);
            let e = if far { d - 16383 } else { d };
            let op = if far { 16 | ((e >> 14) << 3) } else { 32 };
            let three = op | (len as u32 - 2) | ((e & 0x3fff) << 10);
            let token = if near { two } else { three };
            *self.out.get_mut(self.at..)?.first_chunk_mut::<4>()? = token.to_le_bytes();
            self.at += if near { 2 } else { 3 };
            return Some(());
        }
        self.copy_long(distance, len)
    }
    #[inline(never)]
    fn copy_long(&mut self, distance: usize, len: usize) -> Option<()> {
        let (op, d, short) = if distance <= 16384 { (32, distance - 1, 33) } else { (16 | (distance - 16384) >> 14 << 3, distance - 16384, 9) };
        let w = ((d & 0x3fff) << 2) as u16;
        self.bytes([op as u8])?;
        self.rest(len - short)?;
        self.bytes(w.to_le_bytes())
    }
}

pub fn decode(input: &[u8], out: &mut [u8]) -> Result<(), &'static str> {
    let mut at = 0;
    let mut done = 0;
    let mut state;
    let first = *input.first().ok_or("empty")?;
    if first > 17 {
        let n = first as usize - 17;
        at = 1;
        out.get_mut(..n).ok_or("out")?.copy_from_slice(input.get(1..1 + n).ok_or("in")?);
        at += n;
        done = n;
        state = n.min(4);
    } else {
        state = 0;
    }
    loop {
        let b = *input.get(at).ok_or("end")? as usize;
        at += 1;
        let (mut n, d, s);
        if b >= 64 {
            let h = *input.get(at).ok_or("end")? as usize;
            at += 1;
            n = (b >> 5) + 1;
            d = (h << 3) + ((b >> 2) & 7) + 1;
            s = b & 3;
        } else if b >= 16 {
            let mask = if b >= 32 { 31 } else { 7 };
            n = b & mask;
            if n == 0 {
                n = mask + rest(input, &mut at)?;
            }
            n += 2;
            let w = u16::from_le_bytes(*input.get(at..).and_then(|b| b.first_chunk()).ok_or("end")?) as usize;
            at += 2;
            s = w & 3;
            d = if b >= 32 { (w >> 2) + 1 } else { 16384 + ((b & 8) << 11) + (w >> 2) };
            if d == 16384 && b < 32 {
                break;
            }
        } else if state == 0 {
            n = b;
            if n == 0 {
                n = 15 + rest(input, &mut at)?;
            }
            n += 3;
            out.get_mut(done..done + n).ok_or("out")?.copy_from_slice(input.get(at..at + n).ok_or("in")?);
            at += n;
            done += n;
            state = 4;
            continue;
        } else {
            let h = *input.get(at).ok_or("end")? as usize;
            at += 1;
            s = b & 3;
            if state == 4 {
                n = 3;
                d = (h << 2) + (b >> 2) + 2049;
            } else {
                n = 2;
                d = (h << 2) + (b >> 2) + 1;
            }
        }
        let from = done.checked_sub(d).ok_or("distance")?;
        if out.len() - done < n {
            return Err("out");
        }
        for i in 0..n {
            out[done + i] = out[from + i];
        }
        done += n;
        out.get_mut(done..done + s).ok_or("out")?.copy_from_slice(input.get(at..at + s).ok_or("in")?);
        done += s;
        at += s;
        state = s;
    }
    if at != input.len() { return Err("trailing"); }
    if done != out.len() { return Err("short"); }
    Ok(())
}
fn rest(input: &[u8], at: &mut usize) -> Result<usize, &'static str> {
    let z = input[*at..].iter().take_while(|b| **b == 0).count();
    *at += z + 1;
    Ok(255 * z + *input.get(*at - 1).ok_or("end")? as usize)
}
