//! `request …`: asking, waiting, looking, reviewing, dropping. What administrators do with requests is in
//! [`super::requests_admin`].

mod asking;
mod errors;
mod holding;
mod looking;
mod reviewing;
mod rows;

pub(in crate::admin) use self::asking::{Answer, Known, Shown};
pub use self::errors::exit_of;
pub(in crate::admin) use self::rows::{RequestRow, strings};
