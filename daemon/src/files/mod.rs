//! SVIDs in files, for programs that can read nothing else, and only where a rule asks for it. What
//! is in force and whose it is comes from the configuration; here it is written, kept fresh, taken
//! away, and the program told. Knows no process and attests none: whoever may read the files has
//! the identity. Start at [`keep()`].

mod content;
mod keep;
mod known;
mod place;
mod standing;
mod tell;
mod upkeep;

#[cfg(test)]
mod tests;

pub use keep::{FilesParts, keep};
pub use known::{KnownError, are_left};
pub use standing::Standings;
