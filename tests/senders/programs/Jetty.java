import java.util.Map;
import org.eclipse.jetty.client.HttpClient;
import org.eclipse.jetty.client.api.ContentResponse;
import org.eclipse.jetty.client.api.Request;
import org.eclipse.jetty.client.util.FormContentProvider;
import org.eclipse.jetty.http.HttpMethod;
import org.eclipse.jetty.util.Fields;
import org.eclipse.jetty.util.ssl.SslContextFactory;

/** Pushes by Jetty's client. */
public final class Jetty {
    public static void main(String[] args) throws Exception {
        Pushes.run(() -> {
            HttpClient client = new HttpClient(new SslContextFactory.Client());
            client.start();
            return (url, fields) -> push(client, url, fields);
        });
    }

    private static String push(HttpClient client, String url, Map<String, String> fields) throws Exception {
        Request request = client.newRequest(url).method(HttpMethod.POST);
        if (fields != null) {
            Fields form = new Fields();
            fields.forEach(form::add);
            request.content(new FormContentProvider(form));
        }
        ContentResponse response = request.send();
        return Pushes.answer(response.getStatus(), response.getHeaders().get("X-Push-Id"));
    }
}
