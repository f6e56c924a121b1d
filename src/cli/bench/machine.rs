//! On what machine something was measured.

use std::fs;
use std::num::NonZeroUsize;
use std::thread;

/// What is told of the machine.
#[derive(Debug)]
pub(in crate::cli) struct Machine {
    /// The processor's own name; `None` where the kernel does not tell.
    pub(in crate::cli) processor: Option<String>,
    /// Cores that this process may use.
    pub(in crate::cli) cores: usize,
}

impl Machine {
    /// Asks the kernel.
    pub(in crate::cli) fn read() -> Self {
        // Only something to show: not worth an error.
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { processor: processor(&text), cores }
    }

    /// Both on one line.
    pub(in crate::cli) fn line(&self) -> String {
        let processor = self.processor.as_deref().unwrap_or("unknown processor");
        format!("{processor}, {} core{}", self.cores, if self.cores == 1 { "" } else { "s" })
    }
}

/// Linux tells it for each core of x86; not on ARM.
fn processor(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let words: Vec<&str> = line?.1.split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_where_the_kernel_names_it() {
        let text = "processor\t: 0\nmodel name\t: Some  CPU @ 3 GHz\nmodel name\t: other\n";
        assert_eq!(processor(text).as_deref(), Some("Some CPU @ 3 GHz"));
        assert_eq!(processor("processor\t: 0\nBogoMIPS\t: 50.00\n"), None);
        let machine = Machine { processor: None, cores: 1 };
        assert_eq!(machine.line(), "unknown processor, 1 core");
    }
}
