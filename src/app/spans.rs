//! Where spans go: to a collector, in a doorward that was built with the feature `otel`.
//!
//! Without it a configuration that asks for spans is refused, so nothing here is reached.

#[cfg(feature = "otel")]
pub(in crate::app) use self::with::Exporter;
#[cfg(not(feature = "otel"))]
pub(in crate::app) use self::without::Exporter;

#[cfg(feature = "otel")]
mod with {
    use crate::app::AppError;
    use crate::config::Traces;
    use crate::telemetry::{Observer, Observers, SpanExport};
    use std::sync::Arc;

    /// Sends spans until it is stopped.
    #[derive(Debug)]
    pub(in crate::app) struct Exporter(Arc<SpanExport>);

    impl Exporter {
        pub(in crate::app) fn start(traces: &Traces) -> Result<Self, AppError> {
            let started = SpanExport::start(&traces.host, traces.port, &traces.service_name);
            started.map(Arc::new).map(Self).map_err(|error| AppError::Spans(error.into()))
        }

        /// An observer that is told after another one.
        pub(in crate::app) fn beside(&self, other: Arc<dyn Observer>) -> Arc<dyn Observer> {
            Arc::new(Observers(vec![other, Arc::clone(&self.0) as _]))
        }

        pub(in crate::app) fn stop(self) {
            self.0.stop();
        }
    }
}

#[cfg(not(feature = "otel"))]
mod without {
    use crate::app::AppError;
    use crate::config::Traces;
    use crate::telemetry::Observer;
    use std::sync::Arc;

    /// There is none.
    #[derive(Debug)]
    pub(in crate::app) enum Exporter {}

    impl Exporter {
        pub(in crate::app) fn start(_: &Traces) -> Result<Self, AppError> {
            Err(AppError::Spans("built without the feature otel".into()))
        }

        pub(in crate::app) fn beside(&self, _: Arc<dyn Observer>) -> Arc<dyn Observer> {
            match *self {}
        }

        pub(in crate::app) fn stop(self) {
            match self {}
        }
    }
}
