/** The checks of pixels of what was shown only in part, made while the worker has nothing else to do. */

/**
 * @param {{ask: function}} codec
 * @param {number} file that is open in the worker
 * @param {function({faults: string[], lost: number[][]})} found called with what is damaged
 * @param {function(Error)} failed
 */
export function createChecks(codec, file, found, failed) {
  let isRunning = false;
  let isClosed = false;
  let isStale = false; // more was shown since it was last asked

  async function run() {
    if (isRunning) return;
    isRunning = true;
    try {
      while (isStale && !isClosed) {
        isStale = false;
        const answer = await codec.ask("check", { file });
        isStale ||= !answer.isDone;
        if (answer.faults.length && !isClosed) found(answer);
      }
    } catch (error) {
      if (!isClosed) failed(error);
    } finally {
      isRunning = false;
    }
  }

  return {
    /** To be called when something was shown. */
    wake() {
      isStale = true;
      run();
    },
    close() {
      isClosed = true;
    },
  };
}
