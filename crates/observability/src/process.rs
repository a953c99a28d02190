//! What the process costs.

use prometheus::{
    Counter, Registry,
    core::{Collector, Desc},
    process_collector::ProcessCollector,
    proto::MetricFamily,
};
use rustix::time::{ClockId, clock_gettime};
use weir_core::{Error, Result};

/// CPU time to the nanosecond; the usual `process_cpu_seconds_total` counts whole seconds, too coarse for a benchmark.
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

/// Registers the process's CPU, memory, threads and open files.
///
/// # Errors
/// `Internal` where they are registered already.
pub fn process_metrics(metrics: &Registry) -> Result<()> {
    let failed = |source| Error::internal("cannot register the process's metrics").with_source(source);
    let cpu = Counter::new("weir_process_cpu_seconds_total", "CPU time of this process, user and system")
        .map_err(failed)?;
    metrics.register(Box::new(CpuTime(cpu))).map_err(failed)?;
    metrics.register(Box::new(ProcessCollector::for_self())).map_err(failed)
}
