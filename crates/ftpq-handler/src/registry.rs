//! The verbs of a server, by name.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc};

use ciborium::Value;
use ftpq_proto::{
    Spec, Status, codec,
    limits::{SUMMARY_MAX, VERBS_MAX},
    spec::is_verb,
};

use crate::{Context, Exchange, Failure, Handler};

/// The handlers of a server, each under its own name.
#[derive(Default)]
pub struct Registry {
    handlers: BTreeMap<String, Registered>,
}

impl Registry {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `handler`. Two of the same name are an error, never a silent replacement.
    pub fn register<H: Handler>(&mut self, handler: H) -> Result<(), RegisterError> {
        let spec = handler.spec();
        if !is_verb(&spec.verb) {
            return Err(RegisterError::BadName(spec.verb));
        }
        if spec.summary.len() > SUMMARY_MAX {
            return Err(RegisterError::LongSummary(spec.verb));
        }
        if self.handlers.len() == VERBS_MAX {
            return Err(RegisterError::TooMany);
        }
        if self.handlers.contains_key(&spec.verb) {
            return Err(RegisterError::Duplicate(spec.verb));
        }
        self.handlers.insert(spec.verb.clone(), Registered { spec, handler: Arc::new(handler) });
        Ok(())
    }

    /// The handler of `verb`.
    pub fn find(&self, verb: &str) -> Option<&Registered> {
        self.handlers.get(verb)
    }

    /// What is registered, in the order of the names.
    pub fn specs(&self) -> impl Iterator<Item = &Spec> {
        self.handlers.values().map(|registered| &registered.spec)
    }
}

/// A handler with its types forgotten.
pub struct Registered {
    spec: Spec,
    handler: Arc<dyn DynHandler>,
}

impl Registered {
    /// What it was registered as.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Decodes `args`, runs the handler, encodes its reply.
    pub async fn run(&self, cx: &Context, args: Value, exchange: &mut Exchange) -> Result<Value, Failure> {
        self.handler.run(cx, args, exchange).await
    }
}

/// Why a handler cannot be registered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// Another handler has the name.
    #[error("two handlers for the verb {0}")]
    Duplicate(String),
    /// Not a name of a verb.
    #[error("{0:?} cannot name a verb")]
    BadName(String),
    /// A summary that takes too much of the reply to CON.
    #[error("the summary of {0} is longer than {SUMMARY_MAX} bytes")]
    LongSummary(String),
    /// More than fit the reply to CON.
    #[error("more than {VERBS_MAX} verbs")]
    TooMany,
}

/// [`Handler`] as a trait object: its future is boxed here, once, so that handlers need not.
trait DynHandler: Send + Sync {
    fn run<'a>(
        &'a self,
        cx: &'a Context,
        args: Value,
        exchange: &'a mut Exchange,
    ) -> Pin<Box<dyn Future<Output = Result<Value, Failure>> + Send + 'a>>;
}

impl<H: Handler> DynHandler for H {
    fn run<'a>(
        &'a self,
        cx: &'a Context,
        args: Value,
        exchange: &'a mut Exchange,
    ) -> Pin<Box<dyn Future<Output = Result<Value, Failure>> + Send + 'a>> {
        Box::pin(async move {
            let decoded = codec::from_value(&args)
                .map_err(|error| Failure::new(Status::BadArguments, format!("bad arguments: {error}")))?;
            // It may take much more than the bytes that it came in.
            drop(args);
            let _turn = if self.is_costly(&decoded) { Some(cx.costly_turn().await?) } else { None };
            let reply = self.handle(cx, decoded, exchange).await?;
            Value::serialized(&reply).map_err(|error| Failure::internal(error.to_string()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(&'static str);

    impl Handler for Named {
        type Args = ();
        type Reply = ();

        fn spec(&self) -> Spec {
            Spec::for_everyone(self.0, "does nothing")
        }

        async fn handle(&self, _: &Context, (): (), _: &mut Exchange) -> Result<(), Failure> {
            Ok(())
        }
    }

    #[test]
    fn a_second_handler_of_the_same_name_is_refused() {
        let mut registry = Registry::new();
        registry.register(Named("PING")).unwrap();
        registry.register(Named("acme.ping")).unwrap();
        assert_eq!(registry.register(Named("PING")), Err(RegisterError::Duplicate("PING".into())));
        assert!(registry.find("acme.ping").is_some() && registry.find("ping").is_none());
    }

    #[test]
    fn names_that_could_not_be_typed_are_refused() {
        for name in ["", "1UP", "A B", "é", "A\u{1b}"] {
            assert_eq!(Registry::new().register(Named(name)), Err(RegisterError::BadName(name.into())));
        }
    }
}
