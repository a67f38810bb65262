#!/bin/sh
# Market data with curl: EMAIL=… PASSWORD=… sh market-data.sh
set -eu
ORIGIN=${ORIGIN:-http://127.0.0.1:8000}
API=$ORIGIN/api/v1/datafeed
JAR=$(mktemp)
trap 'rm -f "$JAR"' EXIT
ask() { curl --silent --show-error --fail-with-body --cookie "$JAR" "$@"; echo; }

# Sign in; the cookie does the rest, as in a browser. A program may send the token instead.
curl --silent --show-error --fail-with-body --output /dev/null --cookie-jar "$JAR" \
  --header 'Content-Type: application/json' --header "Origin: $ORIGIN" \
  --header 'Sec-Fetch-Site: same-origin' \
  --data "{\"email\": \"$EMAIL\", \"password\": \"$PASSWORD\"}" "$ORIGIN/api/v1/auth/login"

echo '# what there is'
ask "$API/search?user_input=AAPL"
ask "$API/resolve/HIST:AAPL"

echo '# the last five minutes, native: times in milliseconds'
ask "$API/bars?symbol=DEMO:AAPL&resolution=1&count_back=5"

echo '# the first week of 2012, UDF: times in seconds, `to` exclusive'
ask "$API/udf/history?symbol=HIST:AAPL&resolution=1D&from=1325376000&to=1325980800"

echo '# a weekend: no bars, and where the nearest earlier one is'
ask "$API/udf/history?symbol=HIST:AAPL&resolution=1D&from=1325894400&to=1326067200"

echo '# the splits of AAPL'
ask "$API/udf/timescale_marks?symbol=HIST:AAPL&resolution=1D&from=0&to=1400000000"

echo '# quotes'
ask --header 'Content-Type: application/json' --header "Origin: $ORIGIN" \
  --data '{"symbols": ["AAPL", "EURUSD", "BTCUSD"]}' "$API/quotes"

echo '# save a chart, list charts'
STORAGE="$API/charts-storage/1.1/charts?client=curl&user=me"
ask --header "Origin: $ORIGIN" --data-urlencode 'name=first' --data-urlencode 'content={}' \
  --data symbol=DEMO:AAPL --data resolution=1D "$STORAGE"
ask "$STORAGE"
