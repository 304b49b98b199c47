//! One answer of several modules to a method that each of them has.

use serde_json::Value;

use super::error::RpcError;

/// There is no such thing here.
const ENODEV: i32 = -19;

/// The answers to one call that modules share, as they come in.
#[derive(Debug)]
pub(super) struct Join {
    answers: Vec<Option<Result<Value, RpcError>>>,
}

impl Join {
    pub(super) fn new(modules: usize) -> Join {
        Join {
            answers: vec![None; modules],
        }
    }

    /// Takes the answer of one of them. Gives that of all once it is the last.
    pub(super) fn put(
        &mut self,
        module: usize,
        answer: Result<Value, RpcError>,
    ) -> Option<Result<Value, RpcError>> {
        self.answers[module] = Some(answer);
        if self.answers.iter().any(Option::is_none) {
            return None;
        }
        Some(joined(self.answers.drain(..).flatten().collect()))
    }
}

/// What one module does not know another one may. Any other error is the answer.
fn joined(answers: Vec<Result<Value, RpcError>>) -> Result<Value, RpcError> {
    let mut all = None;
    let mut unknown = None;
    for answer in answers {
        match answer {
            Ok(result) => {
                all = Some(match all {
                    None => result,
                    Some(before) => merged(before, result),
                });
            }
            Err(error) if error.code == ENODEV => unknown = unknown.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    match (all, unknown) {
        (None, Some(error)) => Err(error),
        (all, _) => Ok(all.unwrap_or_default()),
    }
}

/// Lists become one list, with what is in both of them once; objects have the members of both. Of anything else the first
/// stands for both.
fn merged(first: Value, second: Value) -> Value {
    match (first, second) {
        (Value::Array(mut list), Value::Array(more)) => {
            for one in more {
                if !list.contains(&one) {
                    list.push(one);
                }
            }
            list.into()
        }
        (Value::Object(mut object), Value::Object(more)) => {
            for (name, value) in more {
                let value = match object.get_mut(&name) {
                    None => value,
                    Some(before) => merged(before.take(), value),
                };
                object.insert(name, value);
            }
            object.into()
        }
        (first, _) => first,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_modules_say_becomes_one_answer() {
        let unknown = || Err(RpcError::errno(19));
        let refused = || Err(RpcError::invalid_params("size"));
        for (answers, all) in [
            (
                vec![Ok(json!([1, 2])), Ok(json!([2, 3]))],
                Ok(json!([1, 2, 3])),
            ),
            (vec![Ok(json!(true)), Ok(json!(true))], Ok(json!(true))),
            (
                vec![
                    Ok(json!({"tick_rate": 1, "bdevs": ["disk"]})),
                    Ok(json!({"tick_rate": 2, "bdevs": ["volume"], "more": true})),
                ],
                Ok(json!({"tick_rate": 1, "bdevs": ["disk", "volume"], "more": true})),
            ),
            (vec![unknown(), Ok(json!(["disk"]))], Ok(json!(["disk"]))),
            (vec![Ok(json!(["disk"])), unknown()], Ok(json!(["disk"]))),
            (vec![unknown(), unknown()], unknown()),
            (vec![unknown(), refused()], refused()),
            (vec![Ok(json!(true)), refused()], refused()),
        ] {
            assert_eq!(joined(answers), all);
        }
        let mut join = Join::new(2);
        assert_eq!(join.put(1, Ok(json!(["second"]))), None);
        assert_eq!(
            join.put(0, Ok(json!(["first"]))),
            Some(Ok(json!(["first", "second"])))
        );
    }
}
