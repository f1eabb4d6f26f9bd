/** Listeners of abort signals: one for each signal, however many calls share it. */

const listeners = new WeakMap<AbortSignal, Set<() => void>>();

/**
 * Calls back when the signal is aborted. Returns a function that takes it back. A signal with a listener for each of a
 * thousand calls would have Node warn of a leak.
 */
export function onAbort(signal: AbortSignal, call: () => void): () => void {
  let calls = listeners.get(signal);
  if (calls === undefined) {
    const own = new Set<() => void>();
    const aborted = (): void => {
      listeners.delete(signal);
      for (const each of own) each();
    };
    signal.addEventListener("abort", aborted, { once: true });
    calls = own;
    listeners.set(signal, own);
    removers.set(own, () => {
      signal.removeEventListener("abort", aborted);
      listeners.delete(signal);
    });
  }
  const own = calls;
  own.add(call);
  return () => {
    if (own.delete(call) && own.size === 0) removers.get(own)?.();
  };
}

const removers = new WeakMap<Set<() => void>, () => void>();
