//! Which build this is, and what the process costs.

use prometheus::{
    Counter, IntGaugeVec,
    core::{Collector, Desc},
    process_collector::ProcessCollector,
    proto::MetricFamily,
};
use rustix::time::{ClockId, clock_gettime};
use weir_core::{Error, Result};
use weir_metrics::{Kind, Registrar};

/// The release of every crate of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that was built, where whoever builds says so.
const REVISION: Option<&str> = option_env!("WEIR_REVISION");

/// CPU time to the nanosecond; the usual `process_cpu_seconds_total` counts whole seconds, too coarse for a benchmark.
#[derive(Clone)]
struct CpuTime(Counter);

impl Collector for CpuTime {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = std::time::Duration::new(
            u64::try_from(time.tv_sec).unwrap_or_default(),
            u32::try_from(time.tv_nsec).unwrap_or_default(),
        )
        .as_secs_f64();
        self.0.inc_by((seconds - self.0.get()).max(0.0));
        self.0.collect()
    }
}

/// Registers which build this is, and the process's CPU, memory, threads and open files.
///
/// # Errors
/// `Internal` where they are registered already.
pub fn process_metrics(registrar: &Registrar<'_>) -> Result<()> {
    let build: IntGaugeVec = registrar.gauges(
        "weir_build_info",
        "1: the release of this process, and the commit that it was built from where that is known",
        &["version", "revision"],
    )?;
    build.with_label_values(&[VERSION, REVISION.unwrap_or("unknown")]).set(1);
    let name = "weir_process_cpu_seconds_total";
    let cpu = Counter::new(name, "CPU time of this process, user and system").map(CpuTime);
    registrar.add(Kind::Counter, name, cpu)?;
    registrar.collector(Box::new(ProcessCollector::for_self())).map_err(|source| {
        Error::internal("the metrics of the process cannot be registered").with_source(source)
    })
}
