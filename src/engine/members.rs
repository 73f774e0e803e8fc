//! A filter for a JSON list of objects: passes on only some of each object's members, while the text arrives in pieces. It keeps
//! nothing of the others' values, however long they are.
#![forbid(unsafe_code)]

/// How deep the members of the list's objects are: in a list, and in an object.
const OBJECT: usize = 2;
/// The longest name of a member that is compared with the wanted ones.
const NAME: usize = 64;

/// The filter, and where in the text it is.
pub(super) struct Members<'a> {
    wanted: &'a [&'a str],
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    /// The last string in one of the list's objects, as far as it matters: at a colon, the name of a member.
    name: Vec<u8>,
    /// Whether this is the value of a member that is not wanted.
    is_left_out: bool,
}

impl<'a> Members<'a> {
    /// Passes on the members with these names. The others become null.
    pub(super) fn of_each(wanted: &'a [&'a str]) -> Self {
        let name = Vec::new();
        Self { wanted, depth: 0, in_string: false, is_escaped: false, name, is_left_out: false }
    }

    /// Adds to `kept` what this piece of the text has of the wanted members. What is no list of objects passes unchanged, and
    /// what is no JSON does not become JSON: the parser of `kept` reports that.
    pub(super) fn keep(&mut self, text: &[u8], kept: &mut Vec<u8>) {
        for &byte in text {
            if self.in_string {
                self.go_on_in_string(byte);
            } else {
                self.go_on(byte, kept);
            }
            if !self.is_left_out {
                kept.push(byte);
            }
        }
    }

    fn go_on_in_string(&mut self, byte: u8) {
        match byte {
            _ if self.is_escaped => self.is_escaped = false,
            b'\\' => self.is_escaped = true,
            b'"' => {
                self.in_string = false;
                return;
            }
            _ => {}
        }
        // An engine writes the names of its API without escapes.
        if self.depth == OBJECT && self.name.len() < NAME {
            self.name.push(byte);
        }
    }

    fn go_on(&mut self, byte: u8, kept: &mut Vec<u8>) {
        match byte {
            b'"' => {
                self.in_string = true;
                if self.depth == OBJECT {
                    self.name.clear();
                }
            }
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => {
                if self.depth == OBJECT {
                    self.is_left_out = false;
                }
                self.depth = self.depth.saturating_sub(1);
            }
            b',' if self.depth == OBJECT => self.is_left_out = false,
            b':' if self.depth == OBJECT && !self.is_wanted() => {
                self.is_left_out = true;
                kept.extend_from_slice(b":null");
            }
            _ => {}
        }
    }

    fn is_wanted(&self) -> bool {
        self.wanted.iter().any(|wanted| wanted.as_bytes() == self.name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const WANTED: [&str; 2] = ["Id", "Tags"];

    /// What the filter passes on of a text that arrives in pieces of this size.
    fn kept(text: &str, size: usize) -> String {
        let (mut members, mut kept) = (Members::of_each(&WANTED), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            members.keep(piece, &mut kept);
        }
        String::from_utf8(kept).unwrap()
    }

    /// The same, by a parser that keeps all.
    fn expected(text: &str) -> Value {
        let mut list: Value = serde_json::from_str(text).unwrap();
        for object in list.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            for (name, value) in object {
                if !WANTED.contains(&name.as_str()) {
                    *value = Value::Null;
                }
            }
        }
        list
    }

    #[test]
    fn only_the_wanted_members_pass() {
        let text = r#"[{"Id":"a","Labels":{"Id":"]}","\"":"\\"},"Tags":["x","Id"]},{"Labels":null,"Id" : "b\\\"c:,}"},
            {"Labels":[[{}]],"IdX":1,"Tags":null,"Id":{"Labels":{"a":1}}},{}]"#;
        for size in 1..=text.len() {
            let kept = kept(text, size);
            assert_eq!(serde_json::from_str::<Value>(&kept).unwrap(), expected(text), "{size}");
            assert!(!kept.contains("]}\""), "{kept}");
        }
        for other in ["null", "[]", "[1,\"a:b\"]", "{\"message\":\"Labels\"}", " [ { } ] "] {
            assert_eq!(kept(other, 1), other);
        }
        // What is cut off is no list.
        assert!(serde_json::from_str::<Value>(&kept(&text[..60], 7)).is_err());
    }

    #[test]
    fn nothing_is_kept_of_a_value_that_is_left_out() {
        let text = format!(r#"[{{"Id":"a","Labels":{{"x":"{}"}}}}]"#, "y".repeat(1 << 20));
        assert_eq!(kept(&text, 4096), r#"[{"Id":"a","Labels":null}]"#);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<i32>().prop_map(Value::from), ".*".prop_map(Value::from)];
        leaf.prop_recursive(3, 20, 4, |inner| {
            let name = prop_oneof![Just("Id".to_owned()), Just("Labels".to_owned()), ".*"];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(name, inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn filter_agrees_with_a_parser(list in prop::collection::vec(values(), 0..4), size in 1usize..50) {
            // A list in the list is none of the engine's; objects in it would count as the list's.
            let list: Vec<_> = list.into_iter().filter(|value| !value.is_array()).collect();
            let text = serde_json::to_string_pretty(&list).unwrap();
            let kept: Value = serde_json::from_str(&kept(&text, size)).unwrap();
            prop_assert_eq!(kept, expected(&text));
        }
    }
}
