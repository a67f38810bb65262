// Signs in by cookie, pages series to their very beginning, follows live bars; prints JSON.
//   node page_history.mjs <client module> <origin> <email> <password>
import { pathToFileURL } from "node:url";

const [, , module, origin, email, password] = process.argv;
const { UdfClient } = await import(pathToFileURL(module));

const login = await fetch(`${origin}/api/v1/auth/login`, {
  method: "POST",
  headers: { "Content-Type": "application/json", Origin: origin },
  body: JSON.stringify({ email, password }),
});
if (!login.ok) throw new Error(`login: ${login.status} ${await login.text()}`);
const cookie = login.headers.getSetCookie().map((each) => each.split(";")[0]).join("; ");

const feed = new UdfClient(`${origin}/api/v1/datafeed/udf`, { Cookie: cookie });
const columns = (bars) => bars.map(({ time, open, high, low, close }) => [time, open, high, low, close]);

const hours = await feed.history("HIST:EURUSD", "60", { page: 900 });
const hoursByWindow = await feed.history("HIST:EURUSD", "60", {
  windowSeconds: 20 * 3600,
  to: hours[400].time + 3600,
});
const days = await feed.history("HIST:FB", "1D", { page: 50 });
const { ticker } = await feed.resolve("AAPL");
const minutes = await feed.history(ticker, "1", { count: 120 });
const live = [];
await new Promise((done) => {
  const stop = feed.subscribe(ticker, "1", minutes.at(-1), (bar) => {
    live.push(bar);
    if (live.length >= 6) done(stop());
  }, { milliseconds: 400 });
});
console.log(JSON.stringify({
  requests: feed.requests,
  hours: columns(hours),
  hoursByWindow: columns(hoursByWindow),
  days: columns(days),
  minutes: columns(minutes),
  live: columns(live),
}));
