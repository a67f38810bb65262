// A UDF client that follows TradingView's rules; runs in a browser and in Node without packages.
//
//   const feed = new UdfClient("/api/v1/datafeed/udf");     // same origin, signed in by cookie
//   const symbol = await feed.resolve("AAPL");
//   const bars = await feed.history(symbol.ticker, "1", { count: 300 });
//   const stop = feed.subscribe(symbol.ticker, "1", bars.at(-1), (bar) => series.update(bar));

export class UdfClient {
  /**
   * @param {string} base     address of the UDF surface, without a slash at the end
   * @param {object} headers  what Node sends besides: a browser sends its cookies by itself
   */
  constructor(base, headers = {}) {
    this.base = base;
    this.headers = headers;
    this.requests = 0;
  }

  /** Ask one path. A UDF client looks at the body alone, whatever the HTTP status is. */
  async ask(path, params = {}) {
    const query = Object.entries(params)
      .map(([key, value]) => `${encodeURIComponent(key)}=${encodeURIComponent(value)}`)
      .join("&");
    this.requests += 1;
    const answer = await fetch(`${this.base}/${path}${query && "?" + query}`, {
      headers: this.headers,
      credentials: "same-origin",
    });
    const body = await answer.json();
    if (body.s === "error") throw new Error(`${path}: ${body.errmsg}`);
    return body;
  }

  config() {
    return this.ask("config");
  }

  search(query, { type = "", exchange = "", limit = 30 } = {}) {
    return this.ask("search", { limit, query: query.toUpperCase(), type, exchange });
  }

  /** Resolve a symbol; its `ticker` is what bars, marks and quotes are asked with. */
  async resolve(symbol) {
    const info = await this.ask("symbols", { symbol });
    if ("s" in info) throw new Error(`unknown symbol ${symbol}`);
    return info;
  }

  /** One page: at most `countback` bars before `to` (seconds), ascending; and where to go on. */
  async page(ticker, resolution, { from = 0, to, countback }) {
    const answer = await this.ask("history", { symbol: ticker, resolution, from, to, countback });
    if (answer.s === "no_data") return { bars: [], nextTime: answer.nextTime ?? null };
    const bars = answer.t.map((time, i) => ({
      time,
      open: answer.o[i],
      high: answer.h[i],
      low: answer.l[i],
      close: answer.c[i],
      volume: answer.v[i],
    }));
    return { bars, nextTime: null };
  }

  /**
   * Page back from `to` as a chart does that is scrolled to the left, until `count` bars are
   * there or nothing earlier exists.
   */
  async history(ticker, resolution, { to = Math.floor(Date.now() / 1000) + 1, count = Infinity,
    page = 500, windowSeconds = 0 } = {}) {
    let bars = [];
    while (bars.length < count) {
      const countback = Math.min(page, count - bars.length);
      const found = windowSeconds
        ? await this.#window(ticker, resolution, to, windowSeconds)
        : await this.page(ticker, resolution, { to, countback });
      if (found.bars.length) {
        bars = found.bars.concat(bars);
        to = found.bars[0].time;
      } else if (found.nextTime !== null) {
        to = found.nextTime + 1; // a gap: jump to the nearest earlier bar
      } else {
        break; // the very beginning
      }
    }
    return bars;
  }

  /** By time alone, as older charts ask: windows that may lie in a gap. */
  async #window(ticker, resolution, to, seconds) {
    const answer = await this.ask("history", {
      symbol: ticker, resolution, from: to - seconds, to,
    });
    if (answer.s === "no_data") return { bars: [], nextTime: answer.nextTime ?? null };
    return {
      bars: answer.t.map((time, i) => ({
        time, open: answer.o[i], high: answer.h[i], low: answer.l[i], close: answer.c[i],
        volume: answer.v[i],
      })),
      nextTime: null,
    };
  }

  /**
   * Poll the newest two bars; each finished bar is told once more with its final values before
   * the next one begins. Returns a function that stops it.
   */
  subscribe(ticker, resolution, last, onBar, { milliseconds = 1000, onError = console.error } = {}) {
    let stopped = false;
    const poll = async () => {
      while (!stopped) {
        try {
          const to = Math.floor(Date.now() / 1000) + 1;
          const { bars } = await this.page(ticker, resolution, { from: to - 600, to, countback: 2 });
          const [before, newest] = bars;
          if (newest.time > last.time) onBar(before);
          if (newest.time >= last.time) onBar((last = newest));
        } catch (error) {
          onError(error);
        }
        await new Promise((done) => setTimeout(done, milliseconds));
      }
    };
    poll();
    return () => {
      stopped = true;
    };
  }
}
