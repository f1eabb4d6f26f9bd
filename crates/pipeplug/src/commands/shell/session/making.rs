//! Lines that call the plugin.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pipeplug_host::CancelHandle;
use pipeplug_host::discovery::nearest_name;
use pipeplug_host::failure_code::UNKNOWN_COMMAND;

use super::{Shell, show_failure};
use crate::args::calls::CallKind;
use crate::commands::run;
use crate::commands::shell::calls::{Caller, Ready};
use crate::commands::shell::data;
use crate::commands::shell::line::{CallLine, Place};
use crate::exit::CommandError;
use crate::output::text::Escaped;

impl Shell<'_> {
    pub(super) fn call(
        &mut self,
        call: CallLine,
        text: &str,
        line: Option<u64>,
    ) -> Result<(), CommandError> {
        let CallLine { kind, command, data, place, is_timed, repeat } = call;
        let arg = data::call(&self.known(), kind, &command, &data)?;
        self.check_command(&arg.command)?;
        let data = data::load(&arg.data)?;
        let live = self.live()?;
        let plugin = live.session.plugin.clone();
        let data = run::prepare_described(
            &arg,
            data,
            plugin.name(),
            &self.known().description,
            self.checking,
        )?;
        let caller = Caller {
            plugin,
            report: Arc::clone(&self.report),
            shutdown: self.shutdown.clone(),
            timeout: self.timeout,
            cancel: CancelHandle::new(),
            counts: Arc::clone(&live.counts),
        };
        let command = arg.command;
        let repeat = repeat.unwrap_or(1);
        let ready =
            Ready { kind, command: command.clone(), data, repeat, is_timed, line, job: None };
        if place == Place::Background {
            return self.begin_job(text, caller, ready, line);
        }
        let counts = Arc::clone(&caller.counts);
        counts.running.fetch_add(1, Ordering::SeqCst);
        let cancel = caller.cancel.clone();
        let result = self.interrupts.while_running(&cancel, || caller.make(&ready));
        let result = result.map_err(|failure| {
            self.learn(&failure);
            self.with_advice(&command, failure)
        });
        if result.is_ok() && kind == CallKind::Call {
            self.known().learn(&command);
        }
        counts.running.fetch_sub(1, Ordering::SeqCst);
        result
    }

    fn begin_job(
        &mut self,
        text: &str,
        caller: Caller,
        ready: Ready,
        line: Option<u64>,
    ) -> Result<(), CommandError> {
        let report = Arc::clone(&self.report);
        let text = text.trim_start_matches('&').trim_start();
        let number = self.jobs.begin(text, caller, ready, move |number, failure| {
            let failure = numbered(number, failure).at(line);
            if line.is_some() {
                // The script ends with it.
                return Err(failure);
            }
            show_failure(&report, &failure);
            Ok(())
        })?;
        if line.is_none() {
            self.report.note(format_args!("[{number}] begun"));
        }
        Ok(())
    }

    /// Replaces the next step after a call of an unknown command, unless the plugin has named its
    /// commands.
    fn with_advice(&self, command: &str, failure: CommandError) -> CommandError {
        let coded = failure.coded.as_ref().filter(|coded| coded.code == UNKNOWN_COMMAND);
        if coded.is_none_or(|coded| coded.data.is_some()) {
            return failure;
        }
        let known = self.known();
        let advice = match nearest_name(command, known.names().into_iter()) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => "`help` lists the commands that are known, and `meta` may tell more".to_owned(),
        };
        CommandError { notes: vec![advice], ..failure }
    }

    /// Keeps the commands that an error names.
    fn learn(&self, failure: &CommandError) {
        let data = failure.coded.as_ref().and_then(|coded| coded.data.as_ref());
        let commands = data.and_then(|data| data.get("commands")?.as_array());
        let mut known = self.known();
        commands
            .into_iter()
            .flatten()
            .filter_map(|command| command.as_str())
            // They go to the terminal.
            .filter(|command| command.chars().all(Escaped::is_harmless))
            .for_each(|command| known.learn(command));
    }
}

/// Adds the number of the job to the message.
fn numbered(number: u32, failure: CommandError) -> CommandError {
    let error = failure.error.map(|error| anyhow::Error::msg(format!("[{number}] {error:#}")));
    CommandError { error, ..failure }
}
