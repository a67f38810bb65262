// History, then live bars: EMAIL=… PASSWORD=… node live-bars.mjs [symbol] [resolution] [updates]
// Needs nothing but Node 22 or later. In a browser the cookie takes the token's place.

const origin = process.env.ORIGIN ?? "http://127.0.0.1:8000";
const [symbol = "AAPL", resolution = "1", updates = "10"] = process.argv.slice(2);

const login = await fetch(`${origin}/api/v1/auth/login`, {
  method: "POST",
  headers: { "Content-Type": "application/json", Origin: origin },
  body: JSON.stringify({ email: process.env.EMAIL, password: process.env.PASSWORD }),
});
const { access_token: token, ...rest } = await login.json();
if (!login.ok) throw new Error(rest.detail);

const query = new URLSearchParams({ symbol, resolution, count_back: "5" });
const answer = await fetch(`${origin}/api/v1/datafeed/bars?${query}`, {
  headers: { Authorization: `Bearer ${token}` },
});
const { bars } = await answer.json();
const show = (bar, note) => console.log(new Date(bar.time).toISOString(), bar.close, note);
for (const bar of bars) show(bar, "history");

// The bar of the last time is the forming one: an update of the same time replaces it, a later
// time begins the next one. The server sends a bar's final state before the next one begins.
let last = bars.at(-1).time;
let count = 0;
const url = `${origin.replace("http", "ws")}/api/v1/datafeed/ws`;
const socket = new WebSocket(url, ["trading.v1", `bearer.${token}`]);
socket.onopen = () =>
  socket.send(JSON.stringify({ type: "bars.subscribe", payload: { symbol, resolution } }));
socket.onmessage = (event) => {
  const { type, payload } = JSON.parse(event.data);
  if (type === "error" || payload.status === "error") throw new Error(payload.detail);
  if (type !== "bars.update") return;
  const bar = payload.payload;
  if (bar.time < last) return; // older than what is drawn
  show(bar, bar.time > last ? "next" : "forming");
  last = bar.time;
  if (++count >= Number(updates)) socket.close();
};
await new Promise((done, fail) => {
  socket.onclose = done;
  socket.onerror = () => fail(new Error("the socket failed"));
});
