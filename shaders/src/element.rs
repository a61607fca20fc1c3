//! How numbers are stored.

/// What the small parts of pairs are multiplied by, so that they are no smaller than 16 bits can hold.
pub const SMALL_SCALE: f32 = 2048.0;

/// How an element lies in memory. Kernels compute in `f32` whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// Single precision, 4 bytes.
    #[default]
    F32,
    /// Rounded to 16 bits, see [`Operands`](crate::Operands).
    F16,
    /// The sum of two 16-bit floats: a value rounded, and what that takes off, held 2048 times as large. Together they
    /// have 22 bits of a value between 2^-13 and 65504, and fewer of a smaller one: they are off by at most 2^-36 then.
    /// Of four neighbours the four large parts lie before the small.
    Pair,
}

impl Element {
    /// Bytes that so many elements take: whole vectors of 16 bytes, and never none.
    pub fn bytes(self, elements: usize) -> u64 {
        (elements.max(1) as u64 * self.size()).next_multiple_of(16)
    }

    /// Elements in so many bytes.
    pub(crate) fn elements(self, bytes: u64) -> usize {
        (bytes / self.size()) as usize
    }

    fn size(self) -> u64 {
        match self {
            Element::F32 | Element::Pair => 4,
            Element::F16 => 2,
        }
    }

    /// The element at an index of an array, as `f32` (with `vector`: four of them, whose index counts in fours).
    pub(crate) fn load(self, array: &str, at: &str, vector: bool) -> String {
        match (self, vector) {
            (Element::F32, _) => format!("{array}[{at}]"),
            (Element::F16, false) => format!("f32({array}[{at}])"),
            (Element::F16, true) => format!("vec4<f32>({array}[{at}])"),
            (Element::Pair, false) => {
                let [large, small] = parts(at);
                format!("pair_sum(vec4<f16>({array}[{large}]), vec4<f16>({array}[{small}])).x")
            }
            (Element::Pair, true) => format!("pair_sum({array}[{at}][0], {array}[{at}][1])"),
        }
    }

    /// The statement that stores an `f32`, or four, at an index of an array.
    pub(crate) fn store(self, array: &str, at: &str, value: &str, vector: bool) -> String {
        match (self, vector) {
            (Element::Pair, false) => {
                let [large, small] = parts(at);
                format!(
                    "{{ let pair = pair_of(vec4<f32>({value})); \
                     {array}[{large}] = pair[0].x; {array}[{small}] = pair[1].x; }}"
                )
            }
            _ => format!("{array}[{at}] = {};", self.narrowed(value, vector)),
        }
    }

    /// What the numbers are that a vector of this type is made of, one by one.
    pub(crate) fn scalar(self) -> Element {
        if self == Element::Pair { Element::F32 } else { self }
    }

    /// An `f32` expression, or four, as this type (or as a [scalar](Element::scalar) is).
    pub(crate) fn narrowed(self, value: &str, vector: bool) -> String {
        match (self, vector) {
            (Element::F32, _) | (Element::Pair, false) => value.to_string(),
            (Element::F16, false) => format!("f16({value})"),
            (Element::F16, true) => format!("vec4<f16>({value})"),
            (Element::Pair, true) => format!("pair_of({value})"),
        }
    }

    /// Four values of this type where the condition holds, else zeros.
    pub(crate) fn only_if(self, condition: &str, value: &str) -> String {
        match self {
            Element::Pair => format!("pair_if({condition}, {value})"),
            _ => format!("select({}(), {value}, {condition})", self.wgsl(true)),
        }
    }

    /// The WGSL type of what arrays hold: one element, or four.
    pub(crate) fn wgsl(self, vector: bool) -> &'static str {
        match (self, vector) {
            (Element::F32, false) => "f32",
            (Element::F32, true) => "vec4<f32>",
            (Element::F16 | Element::Pair, false) => "f16",
            (Element::F16, true) => "vec4<f16>",
            (Element::Pair, true) => "mat2x4<f16>",
        }
    }
}

/// Where the parts of a pair lie in an array of single numbers.
fn parts(at: &str) -> [String; 2] {
    [0, 4].map(|part| format!("(({at}) & ~3) + ({at}) + {part}"))
}
