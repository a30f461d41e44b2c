// SPDX-License-Identifier: Apache-2.0
// @ts-check
/** Asking again and again, only while somebody looks, never twice at once, slower after failures. */

export class Poller {
  /**
   * @param {number} interval ms between the end of one poll and the start of the next
   * @param {{poll: (signal: AbortSignal) => Promise<void>, onSuccess?: () => void, onFailure?: (error: unknown) => void}} hooks
   */
  constructor(interval, { poll, onSuccess, onFailure }) {
    this.interval = interval;
    this.poll = poll;
    this.onSuccess = onSuccess ?? (() => {});
    this.onFailure = onFailure ?? (() => {});
    this.failures = 0;
    /** @type {number | undefined} */
    this.timer = undefined;
    this.busy = false;
  }

  start() {
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) void this.once();
    });
    void this.once();
  }

  async once() {
    clearTimeout(this.timer);
    if (document.hidden || this.busy) return;
    this.busy = true;
    const controller = new AbortController();
    const limit = setTimeout(() => controller.abort(), 20000);
    try {
      await this.poll(controller.signal);
      this.failures = 0;
      this.onSuccess();
    } catch (error) {
      this.failures += 1;
      this.onFailure(error);
    } finally {
      clearTimeout(limit);
      this.busy = false;
      const wait = this.interval * Math.min(5, 1 + this.failures);
      this.timer = window.setTimeout(() => void this.once(), wait);
    }
  }
}
