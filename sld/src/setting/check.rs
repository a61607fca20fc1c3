//! Checks of one value: the error says what is allowed and what was found.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

type Check = Result<(), String>;

fn expect(right: bool, error: impl FnOnce() -> String) -> Check {
    if right { Ok(()) } else { Err(error()) }
}

/// A count of things that there must be one of.
pub fn at_least_one<T: Copy + Into<u64>>(value: &T) -> Check {
    expect((*value).into() >= 1, || "must be at least 1, found 0".into())
}
/// Threads: more would only cost memory.
pub fn at_most_1024(value: &u32) -> Check {
    expect(*value <= 1024, || format!("must be at most 1024, found {value}"))
}
/// Pixels of a side: more would be a mistake.
pub fn at_most_4096(value: &u32) -> Check {
    expect(*value <= 4096, || format!("must be at most 4096, found {value}"))
}
/// The side of a window that has a middle.
pub fn odd(value: &u32) -> Check {
    expect(value % 2 == 1, || format!("must be odd, such as 1 or 3, found {value}"))
}
/// Above 0.
pub fn positive(value: &f64) -> Check {
    expect(*value > 0.0, || format!("must be greater than 0, found {value:?}"))
}
/// 0 or above.
pub fn not_negative(value: &f64) -> Check {
    expect(*value >= 0.0, || format!("must not be negative, found {value:?}"))
}
/// A share that is not all: from 0 to below 1.
pub fn fraction(value: &f64) -> Check {
    expect((0.0..1.0).contains(value), || format!("must be in [0, 1), found {value:?}"))
}
/// A factor that may be 1, but not 0.
pub fn rate(value: &f64) -> Check {
    expect(*value > 0.0 && *value <= 1.0, || format!("must be in (0, 1], found {value:?}"))
}
/// Any number of temperatures, each above 0.
#[allow(clippy::ptr_arg)] // a check gets the field as it is declared
pub fn temperatures(values: &Vec<f64>) -> Check {
    let bad = values.iter().find(|value| **value <= 0.0);
    expect(bad.is_none(), || format!("temperatures must be greater than 0, found {:?}", bad.unwrap_or(&0.0)))
}
/// At least one temperature, each above 0.
#[allow(clippy::ptr_arg)]
pub fn some_temperatures(values: &Vec<f64>) -> Check {
    expect(!values.is_empty(), || "needs at least one temperature, such as [1, 2, 3, 4, 5, 6]".into())
        .and(temperatures(values))
}
/// At least one number, each at least 1.
#[allow(clippy::ptr_arg)]
pub fn sizes(values: &Vec<u32>) -> Check {
    expect(!values.is_empty() && !values.contains(&0), || {
        format!("needs numbers of at least 1, such as [64, 128, 256], found {values:?}")
    })
}
/// Epochs, counted from 1, in rising order.
#[allow(clippy::ptr_arg)]
pub fn stages(values: &Vec<u32>) -> Check {
    expect(values.first() != Some(&0), || {
        "epochs count from 1: stage 0 would lower the learning rate before the first".into()
    })?;
    expect(values.windows(2).all(|pair| pair[0] < pair[1]), || {
        format!("must rise from left to right, such as [150, 180, 210], found {values:?}")
    })
}
/// A name of a folder, or folders, in another.
#[allow(clippy::ptr_arg)]
pub fn folder_name(value: &OsString) -> Check {
    let inside = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
    expect(Path::new(value).components().all(inside), || {
        format!("must not lead out of the output folder, found \"{}\"", value.display())
    })
}
/// A path that names something.
#[allow(clippy::ptr_arg)]
pub fn not_empty(value: &PathBuf) -> Check {
    expect(!value.as_os_str().is_empty(), || "must not be empty".into())
}
