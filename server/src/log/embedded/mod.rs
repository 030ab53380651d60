//! stub
use super::*;
#[derive(Debug)]
pub struct EmbeddedLog;
impl EmbeddedLog {
    pub fn open(_c: &Config, m: LogMetrics) -> Result<MemoryLog, OpenError> {
        Ok(MemoryLog::new(m))
    }
}
