from quals_metric.app import serve

serve("quals", host="0.0.0.0")
